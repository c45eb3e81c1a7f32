#include "text/case_fold.h"

#include <gtest/gtest.h>

namespace nibble::text {
namespace {

TEST(CaseFold, FoldsAndComposes) {
  EXPECT_EQ(case_fold("Not REMEMBER"), "not remember");
  EXPECT_EQ(case_fold("Straße ÉTÉ"), "strasse été");
  EXPECT_EQ(case_fold("E\xCC\x81"), "é");  // a letter and a combining accent
  EXPECT_EQ(case_fold("ಬೆಂಗಳೂರು 7"), "ಬೆಂಗಳೂರು 7");
  EXPECT_EQ(case_fold("\xEF\xAC\x83"), "ffi");  // one of the longest foldings
  EXPECT_EQ(case_fold(std::string_view("A\0B", 3)), std::string("a\0b", 3));
  EXPECT_EQ(case_fold(""), "");
}

TEST(CaseFold, BrokenBytesAreReplaced) {
  EXPECT_EQ(case_fold("A\xFF"), "a\xEF\xBF\xBD");
}

// Every character: the folding fits, and folding twice is folding once.
TEST(CaseFold, IsIdempotent) {
  std::string all;
  for (char32_t c = 1; c < 0x20000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (c < 0x80) {
      all += static_cast<char>(c);
    } else if (c < 0x800) {
      all += {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      all += {static_cast<char>(0xE0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 63)),
              static_cast<char>(0x80 | (c & 63))};
    } else {
      all += {static_cast<char>(0xF0 | (c >> 18)), static_cast<char>(0x80 | ((c >> 12) & 63)),
              static_cast<char>(0x80 | ((c >> 6) & 63)), static_cast<char>(0x80 | (c & 63))};
    }
    all += ' ';
  }
  const std::string once = case_fold(all);
  EXPECT_EQ(case_fold(once), once);
}

}  // namespace
}  // namespace nibble::text
