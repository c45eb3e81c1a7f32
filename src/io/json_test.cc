#include "io/json.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Json, KeepsKeyOrder) {
  const auto json = parse_json(R"({"b": 1, "a": [true, null, 2.5]})", "test");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->dump(), R"({"b":1,"a":[true,null,2.5]})");
}

TEST(Json, RefusesDuplicatesDepthSizeAndGarbage) {
  EXPECT_EQ(parse_json(R"({"a":1,"a":2})", "x.json").status().message(),
            "x.json: expected valid JSON, got duplicate key \"a\"");
  const std::string deep = std::string(65, '[') + std::string(65, ']');
  EXPECT_EQ(parse_json(deep, "t").status().message(), "t: expected valid JSON, got more than 64 levels of nesting");
  EXPECT_TRUE(parse_json(deep, "t", {.max_depth = 65}).ok());
  EXPECT_EQ(parse_json("[1, 2]", "t", {.max_bytes = 5}).status().code(), Code::corrupt);
  for (const char* bad : {"", "{", "[1,]", "nul", "1 2", "\"\xff\"", "{\"a\" 1}"}) {
    EXPECT_EQ(parse_json(bad, "t").status().code(), Code::corrupt) << bad;
  }
}

TEST(Json, BoundsTheKeysOfOneObject) {
  const std::string three = R"([{"a":1,"b":2,"c":3}])";
  EXPECT_TRUE(parse_json(three, "t", {.max_keys = 3}).ok());
  EXPECT_EQ(parse_json(three, "t", {.max_keys = 2}).status().message(),
            "t: expected valid JSON, got an object of more than 2 keys");
}

TEST(Json, SameKeyInSiblingObjectsIsFine) {
  EXPECT_TRUE(parse_json(R"([{"a":1},{"a":{"a":2}}])", "t").ok());
}

}  // namespace
}  // namespace nibble
