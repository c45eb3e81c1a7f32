#include "gate/json_schema.h"

#include <gtest/gtest.h>

namespace nibble::gate {
namespace {

JsonSchema compiled(std::string_view text) {
  auto schema = JsonSchema::compile(*parse_json(text, "schema"), "test");
  EXPECT_TRUE(schema.ok()) << schema.status().text();
  return std::move(schema).value();
}

std::string violation(const JsonSchema& schema, std::string_view value) {
  const auto found = schema.violation(*parse_json(value, "value"));
  EXPECT_TRUE(found.ok()) << found.status().text();
  return found.ok() ? found->value_or("") : "no verdict";
}

struct Golden {
  const char* schema;
  std::vector<const char*> good, bad;
};

TEST(JsonSchema, EachKeyword) {
  const Golden goldens[] = {
      {"true", {"1", "{}"}, {}},
      {"false", {}, {"1", "null"}},
      {"{}", {"1", "[]"}, {}},
      {R"({"type": "integer"})", {"1", "-3", "2.0"}, {"2.5", "true", "\"1\"", "null"}},
      {R"({"type": "number"})", {"1", "2.5"}, {"false", "\"1\""}},
      {R"({"type": "float"})", {"1", "2.5"}, {"\"1\""}},
      {R"({"type": "boolean"})", {"true"}, {"1"}},
      {R"({"type": "string"})", {"\"\""}, {"1", "null"}},
      {R"({"type": "null"})", {"null"}, {"0", "\"\""}},
      {R"({"type": ["string", "null"]})", {"null", "\"a\""}, {"1"}},
      {R"({"type": "tuple"})", {"[1]"}, {"{}"}},
      {R"({"type": "dict"})", {"{}"}, {"[]"}},
      {R"({"type": "any"})", {"{}", "1", "null"}, {}},
      {R"({"enum": ["red", 1, {"a": 1, "b": [2]}]})", {"\"red\"", "1.0", R"({"b": [2], "a": 1})"}, {"\"Red\"", "true"}},
      {R"({"const": 5})", {"5", "5.0"}, {"6", "\"5\""}},
      {R"({"minimum": 1, "maximum": 3})", {"1", "3", "\"x\""}, {"0.9", "4"}},
      {R"({"exclusiveMinimum": 1, "exclusiveMaximum": 3})", {"1.1", "2"}, {"1", "3"}},
      {R"({"minLength": 2, "maxLength": 3})", {"\"éé\"", "\"abc\"", "1"}, {"\"a\"", "\"abcd\""}},
      {R"({"pattern": "^\\d+$"})", {"\"12\"", "12"}, {"\"a1\""}},
      {R"({"minItems": 1, "maxItems": 2})", {"[1]", "[1, 2]", "{}"}, {"[]", "[1, 2, 3]"}},
      {R"({"uniqueItems": true})", {"[1, true, \"1\"]"}, {"[1, 1.0]", R"([{"a": 1, "b": 2}, {"b": 2, "a": 1}])"}},
      {R"({"items": {"type": "string"}})", {"[]", "[\"a\"]", "1"}, {"[\"a\", 1]"}},
      {R"({"properties": {"a": {"type": "string"}}, "required": ["a"]})",
       {R"({"a": "x", "b": 1})", "1"},
       {"{}", R"({"a": 1})"}},
      {R"({"properties": {"a": true}, "additionalProperties": false})", {R"({"a": 1})", "{}"}, {R"({"b": 1})"}},
      {R"({"additionalProperties": {"type": "integer"}})", {R"({"b": 1})"}, {R"({"b": "1"})"}},
      {R"({"anyOf": [{"type": "string"}, {"minimum": 5}]})", {"\"a\"", "5"}, {"4"}},
      {R"({"oneOf": [{"type": "integer"}, {"minimum": 5}]})", {"1", "5.5"}, {"6", "1.5"}},
      {R"({"allOf": [{"minimum": 1}, {"maximum": 3}]})", {"2"}, {"0", "4"}},
      {R"({"not": {"type": "string"}})", {"1"}, {"\"a\""}},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}})", {"\"a\""}, {"1"}},
      {R"({"type": "object", "properties": {"next": {"$ref": "#"}}})",
       {R"({"next": {"next": {}}})"},
       {R"({"next": {"next": 1}})"}},
  };
  for (const auto& [text, good, bad] : goldens) {
    const JsonSchema schema = compiled(text);
    EXPECT_TRUE(schema.unknown_keywords().empty()) << text;
    for (const char* value : good) EXPECT_EQ(violation(schema, value), "") << text << " " << value;
    for (const char* value : bad) EXPECT_NE(violation(schema, value), "") << text << " " << value;
  }
}

TEST(JsonSchema, SaysWhatIsWrongAndWhere) {
  const JsonSchema schema = compiled(R"({"type": "object", "required": ["minutes"], "additionalProperties": false,
    "properties": {"minutes": {"type": "integer", "minimum": 1}, "tags": {"items": {"maxLength": 3}}, "a/b~": {"const": 1}}})");
  EXPECT_EQ(violation(schema, "5"), "expected the type \"object\", got 5");
  EXPECT_EQ(violation(schema, "{}"), "expected the key \"minutes\", got none");
  EXPECT_EQ(violation(schema, R"({"minutes": "five"})"), "/minutes: expected the type \"integer\", got \"five\"");
  EXPECT_EQ(violation(schema, R"({"minutes": 0})"), "/minutes: expected at least 1, got 0");
  EXPECT_EQ(violation(schema, R"({"minutes": 1, "tags": ["tea", "later"]})"),
            "/tags/1: expected at most 3 characters, got 5");
  EXPECT_EQ(violation(schema, R"({"minutes": 1, "x": 2})"), "expected no key \"x\", got it");
  EXPECT_EQ(violation(schema, R"({"minutes": 1, "a/b~": 2})"), "/a~1b~0: expected 1, got 2");
}

TEST(JsonSchema, ReportsWhatItDoesNotKnow) {
  const JsonSchema schema = compiled(
      R"({"title": "t", "properties": {"x": {"multipleOf": 2, "description": "d", "default": {"multipleOf": 3}}}, "if": true})");
  EXPECT_EQ(schema.unknown_keywords(), (std::vector<std::string>{"/properties/x/multipleOf", "/if"}));
}

TEST(JsonSchema, RefusesWhatIsNoSchema) {
  for (const char* bad : {"1",
                          "[]",
                          R"({"type": "strnig"})",
                          R"({"type": []})",
                          R"({"type": 1})",
                          R"({"properties": []})",
                          R"({"properties": {"a": 1}})",
                          R"({"required": [1]})",
                          R"({"required": true})",
                          R"({"items": [true]})",
                          R"({"enum": 1})",
                          R"({"minimum": "1"})",
                          R"({"exclusiveMinimum": true})",
                          R"({"minLength": -1})",
                          R"({"minItems": 1.5})",
                          R"({"uniqueItems": 1})",
                          R"({"pattern": "("})",
                          R"({"pattern": 1})",
                          R"({"anyOf": []})",
                          R"({"anyOf": {}})",
                          R"({"$ref": "#/$defs/none"})",
                          R"({"$ref": "http://x"})",
                          R"({"$ref": 1})",
                          R"({"$ref": "#/default", "default": 5})"}) {
    EXPECT_EQ(JsonSchema::compile(*parse_json(bad, "schema"), "test").status().code(), Code::corrupt) << bad;
  }
  EXPECT_EQ(JsonSchema::compile(*parse_json(R"({"items": {"type": "x"}})", "schema"), "tools[0]").status().message(),
            "tools[0]/items/type: expected the name of a type, or several, got \"x\"");
}

// Schemas that never end, or not soon, and a pattern at its limit give no verdict.
TEST(JsonSchema, BoundsItsWork) {
  const JsonSchema loop = compiled(R"({"$ref": "#"})");
  EXPECT_EQ(loop.violation(1).status().code(), Code::unavailable);
  const JsonSchema tree = compiled(R"({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]})");
  const std::string deep = std::string(60, '[') + std::string(60, ']');
  EXPECT_EQ(tree.violation(*parse_json(deep, "value")).status().code(), Code::unavailable);
  const JsonSchema pattern = compiled(R"({"pattern": "(?:a+)+[bc]"})");
  EXPECT_EQ(pattern.violation(std::string(64, 'a')).status().code(), Code::unavailable);
}

}  // namespace
}  // namespace nibble::gate
