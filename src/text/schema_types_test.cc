#include "text/schema_types.h"

#include <gtest/gtest.h>

namespace nibble::text {
namespace {

Json json(std::string_view text) {
  auto parsed = parse_json(text, "test");
  EXPECT_TRUE(parsed.ok()) << text;
  return parsed.ok() ? *parsed : Json();
}

TypeSet set(std::initializer_list<TypeSet::Type> types) {
  TypeSet all;
  for (const auto type : types) all.add(type);
  return all;
}

TypeSet types_of(std::string_view schema) {
  const Json parsed = json(schema);
  return schema_types(parsed, parsed);
}

TEST(SchemaTypes, ReadsEveryPlaceWhereATypeStands) {
  EXPECT_EQ(types_of(R"({"type": "string"})"), TypeSet::string);
  EXPECT_EQ(types_of(R"({"type": ["integer", "null"]})"), set({TypeSet::integer, TypeSet::null}));
  EXPECT_EQ(types_of(R"({"enum": ["celsius", 3, 2.5, true, null]})"),
            set({TypeSet::string, TypeSet::integer, TypeSet::number, TypeSet::boolean, TypeSet::null}));
  EXPECT_EQ(types_of(R"({"const": [1]})"), TypeSet::array);
  EXPECT_EQ(types_of(R"({"anyOf": [{"type": "number"}, {"oneOf": [{"allOf": [{"type": "object"}]}]}]})"),
            set({TypeSet::number, TypeSet::object}));
  EXPECT_EQ(types_of(R"({"type": "int64"})"), TypeSet::integer);
  EXPECT_EQ(types_of(R"({"type": "uint8"})"), TypeSet::integer);
  EXPECT_EQ(types_of(R"({"type": "dict"})"), TypeSet::object);
  EXPECT_EQ(types_of(R"({"type": "date"})"), TypeSet::other);
  for (const char* silent : {"{}", "true", "[]", "null", R"({"type": 5})", R"({"anyOf": {}})"}) {
    EXPECT_TRUE(types_of(silent).empty()) << silent;
  }
}

TEST(SchemaTypes, FollowsLocalReferencesThroughCycles) {
  const Json root = json(R"({"$defs": {"a/b": {"anyOf": [{"$ref": "#/$defs/c"}, {"type": "integer"}]},
                                       "c": {"$ref": "#/$defs/a~1b", "oneOf": [{"type": "null"}]}},
                             "list": [{"type": "array"}]})");
  EXPECT_EQ(schema_types(json(R"({"$ref": "#/$defs/a~1b"})"), root), set({TypeSet::integer, TypeSet::null}));
  EXPECT_EQ(schema_types(json(R"({"$ref": "#/list/0"})"), root), TypeSet::array);
  for (const char* nowhere :
       {"#/list/1", "#/list/x", "#/list/", "#/list/9999999999", "other.json#/a", "#a", "#/$defs/none", ""}) {
    EXPECT_TRUE(schema_types(Json{{"$ref", nowhere}}, root).empty()) << nowhere;
  }
}

// Each level refers to the next twice: walked as a tree this would be 2^200 steps.
TEST(SchemaTypes, IsLinearInTheSchema) {
  Json root = {{"$defs", Json::object()}};
  for (int i = 0; i < 200; ++i) {
    const Json next = {{"$ref", "#/$defs/" + std::to_string(i + 1)}};
    root["$defs"][std::to_string(i)] = {{"anyOf", Json::array({next, next})}};
  }
  root["$defs"]["200"] = {{"type", "boolean"}};
  EXPECT_EQ(schema_types(Json{{"$ref", "#/$defs/0"}}, root), TypeSet::boolean);
}

TEST(SchemaTypes, ReadsToolsAndSkipsWhatIsNone) {
  const ToolTypes tools(json(R"([{"type": "function", "function": {"name": "f", "parameters": {
      "$defs": {"n": {"type": "number"}}, "properties": {"x": {"$ref": "#/$defs/n"}, "y": {"type": "string"}}}}},
      {"type": "function", "function": {"name": "bare"}}, {"function": 3}, 5, {"function": {"name": 7}}])"));
  ASSERT_NE(tools.function("f"), nullptr);
  EXPECT_EQ(tools.function("f")->at("x"), TypeSet::number);
  EXPECT_EQ(tools.function("f")->at("y"), TypeSet::string);
  ASSERT_NE(tools.function("bare"), nullptr);
  EXPECT_TRUE(tools.function("bare")->empty());
  EXPECT_EQ(tools.function("g"), nullptr);
  EXPECT_EQ(ToolTypes(Json()).function("f"), nullptr);
}

TEST(ConvertValue, TakesTheFirstTypeThatFits) {
  struct Case {
    const char* value;
    TypeSet types;
    const char* expected;
  };
  const Case cases[] = {
      {"5", TypeSet::string, "\"5\""},
      {"null", TypeSet::string, "\"null\""},
      {"5", {}, "\"5\""},
      {"NULL", TypeSet::null, "null"},
      {"null", set({TypeSet::string, TypeSet::null}), "null"},
      {"nil", set({TypeSet::string, TypeSet::null}), "\"nil\""},
      {"42", TypeSet::integer, "42"},
      {" 42 ", TypeSet::integer, "42"},
      {"99999999999999999999999", TypeSet::integer, "99999999999999999999999"},
      {"-0", TypeSet::integer, "-0"},
      {"042", TypeSet::integer, "\"042\""},
      {"2026-01-15", TypeSet::integer, "\"2026-01-15\""},
      {"3.0", TypeSet::integer, "\"3.0\""},
      {"2.50", TypeSet::number, "2.50"},
      {"7", TypeSet::number, "7"},
      {"1e999", TypeSet::number, "\"1e999\""},
      {"NaN", TypeSet::number, "\"NaN\""},
      {"True", TypeSet::boolean, "true"},
      {"0", TypeSet::boolean, "false"},
      {"1", set({TypeSet::boolean, TypeSet::integer}), "1"},
      {"yes", TypeSet::boolean, "\"yes\""},
      {"{\"a\":1}", TypeSet::object, "{\"a\": 1}"},
      {"[\"1\",\n\"2\"]", TypeSet::array, "[\"1\", \"2\"]"},
      {"{\"a\":1e999}", TypeSet::object, "\"{\\\"a\\\":1e999}\""},
      {"{'a': 1}", TypeSet::object, "\"{'a': 1}\""},
      {"5", TypeSet::object, "\"5\""},
      {"5", TypeSet::other, "5"},
      {"2026-01-15", TypeSet::other, "\"2026-01-15\""},
      {" keep ", TypeSet::integer, "\" keep \""},
      {"", TypeSet::integer, "\"\""},
  };
  for (const Case& c : cases) EXPECT_EQ(convert_value(c.value, c.types), c.expected) << c.value;
}

}  // namespace
}  // namespace nibble::text
