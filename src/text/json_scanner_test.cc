#include "text/json_scanner.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "base/rng.h"

namespace nibble::text {
namespace {

bool accepts(std::string_view text) {
  return reprint_json(text).has_value();
}

TEST(JsonScanner, AcceptsJsonAndNothingElse) {
  for (const char* good : {"{}", "[]", " [1, 2.50,-0,1e5,1E-2,0.1e+3] ", R"({"a":{"b":[null,true,false]},"":""})",
                           R"("a\n\u00e9\ud83d\ude00\"\\\/")", "0", "-12", "true"}) {
    EXPECT_TRUE(accepts(good)) << good;
  }
  for (const char* bad : {"",
                          " ",
                          "{",
                          "]",
                          "[1,]",
                          "{\"a\"}",
                          "{\"a\":}",
                          "{\"a\":1,}",
                          "{a:1}",
                          "01",
                          "1.",
                          ".5",
                          "+1",
                          "1e",
                          "1e+",
                          "-",
                          "tru",
                          "truee",
                          "nulL",
                          "1 2",
                          "{}{}",
                          "'a'",
                          "\"a",
                          "\"\n\"",
                          R"("\x")",
                          R"("\u12g4")",
                          R"("\ud800")",
                          R"("\ud800a")",
                          R"("\udc00")",
                          R"("\ud800\ud800")",
                          "[1 2]",
                          "1e308",
                          "123e306",
                          "-1e400",
                          "[}"}) {
    EXPECT_FALSE(accepts(bad)) << bad;
  }
  EXPECT_TRUE(accepts("1e307"));
  EXPECT_TRUE(accepts("0e999"));
  EXPECT_TRUE(accepts("0.0001e310"));
  EXPECT_TRUE(accepts(std::string(64, '[') + std::string(64, ']')));
  EXPECT_FALSE(accepts(std::string(65, '[') + std::string(65, ']')));
}

TEST(JsonScanner, ReprintsWithOneSpaceAndKeepsDigits) {
  EXPECT_EQ(reprint_json("{\"width\":10 ,\n \"height\" : [ 2.50,1e3 ],\"s\":\" a, b: c \"}"),
            R"({"width": 10, "height": [2.50, 1e3], "s": " a, b: c "})");
}

TEST(JsonScanner, StringsRoundTrip) {
  const std::string text = "a\"b\\c\n\t\r\x01\x1f/ಬ🌧";
  EXPECT_EQ(json_string(text), "\"a\\\"b\\\\c\\n\\t\\r\\u0001\\u001f/ಬ🌧\"");
  EXPECT_EQ(decode_json_string(json_string(text)), text);
  EXPECT_EQ(decode_json_string("\"a"), std::nullopt);
  EXPECT_EQ(decode_json_string("1"), std::nullopt);
  EXPECT_EQ(decode_json_string("\"\xff\""), std::nullopt);
}

// The safe points by hand: the prefixes of this text that may be passed on.
TEST(JsonScanner, SafePointsAreThoseOfTheContract) {
  const std::string text = R"({"k": "v\u00e9", "n": -1.5e2, "t": true, "a": [1]})";
  std::vector<std::string> safe;
  JsonScanner scanner;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto step = scanner.push(text[i]);
    ASSERT_TRUE(step.ok);
    if (step.safe) safe.push_back(text.substr(0, i + 1));
  }
  const std::vector<std::string> expected = {
      R"({)",
      R"({"k": ")",
      R"({"k": "v)",
      R"({"k": "v\u00e9)",
      R"({"k": "v\u00e9")",
      R"({"k": "v\u00e9", "n": -1)",
      R"({"k": "v\u00e9", "n": -1.5)",
      R"({"k": "v\u00e9", "n": -1.5e2)",
      R"({"k": "v\u00e9", "n": -1.5e2, "t": true)",
      R"({"k": "v\u00e9", "n": -1.5e2, "t": true, "a": [)",
      R"({"k": "v\u00e9", "n": -1.5e2, "t": true, "a": [1)",
      R"({"k": "v\u00e9", "n": -1.5e2, "t": true, "a": [1])",
      R"({"k": "v\u00e9", "n": -1.5e2, "t": true, "a": [1]})",
  };
  EXPECT_EQ(safe, expected);
}

// Random texts over the bytes of JSON: whenever the scanner calls a point safe, text and closers are JSON; and a text
// is complete exactly if nlohmann-json accepts it, but for numbers near the end of the range.
TEST(JsonScanner, AgreesWithAnotherParserAndClosesEverySafePoint) {
  const std::vector<std::string> pieces = {"{",       "}",       "[",         "]",      "\"",      "\"a\"",   ":",
                                           ",",       " ",       "1",         "0",      "-",       ".5",      "e2",
                                           "true",    "nul",     "l",         "\\",     "\\u00e9", "\\ud83d", "b",
                                           "\\ude00", "\"k\": ", ", \"k\": ", "[1, 2]", "{}",      "\n",      "false"};
  Rng rng(7);
  int complete = 0, safe = 0;
  for (int round = 0; round < 40000; ++round) {
    std::string text = rng.below(2) == 0 ? "{" : "[";
    JsonScanner scanner;
    scanner.push(text[0]);
    bool ok = true;
    for (uint32_t n = rng.below(12); ok && n > 0; --n) {
      for (const char c : pieces[rng.below(static_cast<uint32_t>(pieces.size()))]) {
        const std::string before = text;
        text += c;
        const auto step = scanner.push(c);
        ok = step.ok;
        if (!ok) {
          EXPECT_FALSE(nlohmann::json::accept(text)) << text;
          break;
        }
        if (!step.safe) continue;
        ++safe;
        EXPECT_TRUE(nlohmann::json::accept(text + scanner.closers())) << text << " + " << scanner.closers();
      }
    }
    if (!ok) continue;
    EXPECT_EQ(scanner.complete(), nlohmann::json::accept(text)) << text;
    complete += scanner.complete();
  }
  EXPECT_GT(complete, 100);
  EXPECT_GT(safe, 10000);
}

}  // namespace
}  // namespace nibble::text
