#include "io/json_text.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(JsonText, CanonicalIsOneForEqualValues) {
  const auto canonical = [](std::string_view text) { return canonical_json(*parse_json(text, "test")); };
  EXPECT_EQ(canonical(R"({"b": [1.0, -0.0, 1e3, 2.5, true, null], "a": {"d": "é\"", "c": 7}})"),
            R"({"a":{"c":7,"d":"é\""},"b":[1,0,1000,2.5,true,null]})");
  EXPECT_EQ(canonical("18446744073709551615"), "18446744073709551615");
  EXPECT_EQ(canonical("1e300"), "1e+300");
  EXPECT_NE(canonical("1"), canonical("true"));
  EXPECT_NE(canonical("1"), canonical(R"("1")"));
}

TEST(JsonText, CompactTakesAnyBytes) {
  EXPECT_EQ(compact_json(Json{{"a", "\xff"}}), "{\"a\":\"\uFFFD\"}");
}

TEST(JsonText, BriefForMessages) {
  EXPECT_EQ(brief_json(*parse_json(R"({"a": [1, "é"]})", "test")), R"({"a":[1,"é"]})");
  EXPECT_EQ(brief_json(std::string(100, 'a')), "\"" + std::string(79, 'a') + "…");
  EXPECT_EQ(brief_json(std::string(78, 'a') + "é"), "\"" + std::string(78, 'a') + "…");  // é ends behind the 80th
}

}  // namespace
}  // namespace nibble
