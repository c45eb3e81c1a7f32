#include "text/encoding_check.h"

#include <gtest/gtest.h>

namespace nibble::text {
namespace {

std::vector<std::string> hits(const EncodingCheck& check, std::string_view text) {
  const auto found = check.detect(text);
  EXPECT_TRUE(found.ok()) << found.status().text();
  std::vector<std::string> out;
  for (const Detection& hit : *found) out.push_back(hit.detector + " " + hit.snippet);
  return out;
}

EncodingCheck by_default() {
  auto check = EncodingCheck::for_scripts();
  EXPECT_TRUE(check.ok()) << check.status().text();
  return std::move(check).value();
}

using Hits = std::vector<std::string>;

TEST(EncodingCheck, TakesTheScriptsOfTheRecipe) {
  const EncodingCheck check = by_default();
  for (const char* good : {"Plain text, 5 °C – “so”…\n\tétude", "ನಮಸ್ಕಾರ। ರ್\u200Dಕ", "नमस्ते॥", "a\u0301",
                           "Nice 😀 work 👍🏽 👨\u200D👩", ""}) {
    EXPECT_EQ(hits(check, good), Hits()) << good;
  }
  EXPECT_EQ(hits(check, "It is 你好 and да."), (Hits{"encoding.script 你好", "encoding.script да"}));

  const std::vector<std::string> scripts = {"Han"};
  auto han = EncodingCheck::for_scripts(scripts);
  ASSERT_TRUE(han.ok());
  EXPECT_EQ(hits(*han, "你好。"), Hits());
  EXPECT_EQ(hits(*han, "你好 ok"), Hits{"encoding.script ok"});
}

TEST(EncodingCheck, FindsBrokenCharacters) {
  const EncodingCheck check = by_default();
  EXPECT_EQ(hits(check, "a\uFFFD\uFFFDb"), Hits{"encoding.broken \uFFFD\uFFFD"});
  EXPECT_EQ(hits(check, "a\x1b[0m"), Hits{"encoding.broken \x1b"});
  EXPECT_EQ(hits(check, std::string_view("\0", 1)).size(), 1u);
  EXPECT_EQ(hits(check, "a\r\n").size(), 1u);
  EXPECT_EQ(hits(check, "a\uE000").size(), 1u);   // private use
  EXPECT_EQ(hits(check, "a\u0378").size(), 1u);   // unassigned
  EXPECT_EQ(hits(check, "a\U0001FAFF"), Hits());  // reserved for pictographs
  EXPECT_EQ(check.detect("\xff").status().code(), Code::invalid_argument);
}

TEST(EncodingCheck, RefusesWhatIsNoScript) {
  for (const char* name : {"Klingon", "", "Latin}\\p{L", "scx:Latin", "L"}) {
    const std::vector<std::string> scripts = {name};
    EXPECT_EQ(EncodingCheck::for_scripts(scripts).status().code(), Code::invalid_argument) << name;
  }
}

}  // namespace
}  // namespace nibble::text
