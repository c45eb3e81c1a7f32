#include "text/nfc.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/rng.h"

namespace nibble::text {
namespace {

std::string utf8(const std::vector<utf8proc_int32_t>& points) {
  std::string text;
  for (const auto c : points) {
    utf8proc_uint8_t bytes[4];
    const auto n = utf8proc_encode_char(c, bytes);
    text.append(bytes, bytes + n);
  }
  return text;
}

// The library's own NFC in one call.
std::string oracle(const std::string& text) {
  utf8proc_uint8_t* out = nullptr;
  const auto n =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &out, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  EXPECT_GE(n, 0);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(out, &std::free);
  return {out, out + n};
}

TEST(Nfc, Examples) {
  EXPECT_EQ(nfc(""), "");
  EXPECT_EQ(nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(nfc("\u00E9"), "\u00E9");
  EXPECT_EQ(nfc("a\u0301\u0323"), "\u1EA1\u0301");  // the dot below sorts before the acute
  EXPECT_EQ(nfc("\u1112\u1161\u11AB"), "\uD55C");   // Hangul composes by arithmetic
  EXPECT_EQ(nfc("\u2126\u212B"), "\u03A9\u00C5");   // singletons
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093C");         // excluded from composition
  EXPECT_EQ(nfc("\uFB01"), "\uFB01");               // compatibility forms stay
  EXPECT_EQ(nfc(std::string("a\0b", 3)), std::string("a\0b", 3));
}

TEST(Nfc, EveryCharacterAloneAgreesWithTheLibrary) {
  for (utf8proc_int32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    const std::string text = utf8({c});
    ASSERT_EQ(nfc(text), oracle(text)) << c;
    if (surely_nfc(text)) {
      ASSERT_EQ(nfc(text), text) << c;
    }
  }
}

TEST(Nfc, RandomSequencesAgreeWithTheLibrary) {
  static constexpr utf8proc_int32_t kPoints[] = {'a',    'e',    'o',    0x00E9, 0x0041, 0x0300, 0x0301, 0x0323, 0x0327,
                                                 0x0345, 0x0915, 0x093C, 0x09C7, 0x09BE, 0x1100, 0x1161, 0x11A8, 0xAC00,
                                                 0x1EA1, 0x212B, 0x3099, 0x304B, 0x0F71, 0x0F72, 0x2ADC, 0x1D15E};
  Rng rng(3);
  for (int i = 0; i < 20000; ++i) {
    std::vector<utf8proc_int32_t> points(rng.below(8));
    for (auto& c : points) c = kPoints[rng.below(std::size(kPoints))];
    const std::string text = utf8(points), composed = nfc(text);
    ASSERT_EQ(composed, oracle(text));
    ASSERT_EQ(nfc(composed), composed);
    if (surely_nfc(text)) {
      ASSERT_EQ(composed, text);
    }
  }
}

TEST(Nfc, UnsortedMarksDoNotTakeQuadraticTime) {
  // Insertion sort would move 10^10 times here.
  std::string marks = "a";
  for (int i = 0; i < 200000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0316";
  const auto start = std::chrono::steady_clock::now();
  const std::string composed = nfc(marks);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  EXPECT_EQ(composed.substr(0, 4), "\u00E1\u0316");
  EXPECT_EQ(composed.size(), marks.size() - 1);
}

}  // namespace
}  // namespace nibble::text
