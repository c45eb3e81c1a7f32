#include "gate/call_match.h"

#include <gtest/gtest.h>

#include <vector>

namespace nibble::gate {
namespace {

constexpr const char* kTools = R"([
  {"type": "function", "function": {"name": "set_timer", "parameters": {"type": "object",
    "properties": {"minutes": {"type": "integer"}, "label": {"type": "string"}}, "required": ["minutes"]}}},
  {"type": "function", "function": {"name": "web_search", "parameters": {"type": "object",
    "properties": {"query": {"type": "string"}, "max": {"type": "integer"}}, "required": ["query"]}}},
  {"type": "function", "function": {"name": "geo.area", "parameters": {"type": "dict",
    "properties": {"side": {"type": "float"}, "round": {"type": "boolean"}, "points": {"type": "tuple", "items": {"type": "float"}},
      "names": {"type": "array", "items": {"type": "string"}}, "where": {"type": "dict"}, "anything": {"type": "any"},
      "stops": {"type": "array", "items": {"type": "dict"}}, "either": {"type": ["string", "null"]},
      "ref": {"$ref": "#/$defs/count"}},
    "$defs": {"count": {"type": "integer"}}, "required": []}}},
  {"type": "function", "function": {"name": "stop"}}
])";

Json json(std::string_view text) {
  auto parsed = parse_json(text, "test");
  EXPECT_TRUE(parsed.ok()) << parsed.status().text() << text;
  return parsed.ok() ? *parsed : Json();
}

using Calls = std::vector<ToolCall>;

ToolCall call(std::string name, std::string arguments) {
  return {"id", std::move(name), std::move(arguments)};
}

std::string verdict(const Result<CallExpectation>& expected, const Calls& calls) {
  EXPECT_TRUE(expected.ok()) << expected.status().text();
  if (!expected.ok()) return "no expectation";
  const auto mismatch = expected->mismatch(calls);
  EXPECT_TRUE(mismatch.ok()) << mismatch.status().text();
  if (!mismatch.ok()) return "no verdict";
  return *mismatch ? std::string(name((*mismatch)->fault)) + "; " + (*mismatch)->message : "right";
}

std::string all(std::string_view expected, const Calls& calls, CallRules rules = {}) {
  return verdict(CallExpectation::all_of(json(expected), json(kTools), "expect.call", rules), calls);
}
std::string any(std::string_view expected, const Calls& calls) {
  return verdict(CallExpectation::any_of(json(expected), json(kTools), "expect.call_any"), calls);
}

// One parameter of geo.area: is the value one of the allowed?
std::string area(const std::string& parameter, const std::string& allowed, const std::string& value,
                 CallRules rules = {}) {
  const std::string text = all(R"({"geo.area": {")" + parameter + R"(": )" + allowed + "}}",
                               {call("geo_area", R"({")" + parameter + R"(": )" + value + "}")}, rules);
  return text.substr(0, text.find(';'));
}

constexpr const char* kTimer = R"({"set_timer": {"minutes": [5], "label": ["", "tea"]}})";

TEST(CallMatch, RightCalls) {
  EXPECT_EQ(all(kTimer, {call("set_timer", R"({"minutes": 5})")}), "right");
  EXPECT_EQ(all(kTimer, {call("set_timer", R"({"label": "Tea", "minutes": 5})")}), "right");
  EXPECT_EQ(all(R"([{"set_timer": {"minutes": [5, 6]}}])", {call("set_timer", R"({"minutes": 6})")}), "right");
  EXPECT_EQ(all(R"({"stop": {}})", {call("stop", "{}")}), "right");
}

TEST(CallMatch, SaysWhatFailed) {
  EXPECT_EQ(all(kTimer, {}), "trigger; expected a call of set_timer, got none");
  EXPECT_EQ(all(kTimer, {call("set_timer", "{}"), call("stop", "{}")}),
            "count; expected 1 call, got 2: set_timer, stop");
  EXPECT_EQ(all(kTimer, {call("stop", "{}")}), "name; expected a call of set_timer, got stop");
  EXPECT_EQ(all(kTimer, {call("set_timer", R"({"label": "tea"})")}),
            "missing; set_timer.minutes: expected a value, got none");
  EXPECT_EQ(all(kTimer, {call("set_timer", R"({"minutes": 5, "color": "red"})")}),
            "extra; set_timer.color: expected no such argument, got \"red\"");
  EXPECT_EQ(all(kTimer, {call("set_timer", R"({"minutes": "5"})")}),
            "type; set_timer.minutes: expected an integer, got \"5\"");
  EXPECT_EQ(all(kTimer, {call("set_timer", R"({"minutes": 15})")}), "value; set_timer.minutes: expected 5, got 15");
  EXPECT_EQ(all(R"({"set_timer": {"minutes": [5, 6]}})", {call("set_timer", R"({"minutes": 15})")}),
            "value; set_timer.minutes: expected 5 or 6, got 15");
  for (const char* broken : {"", "{", "[]", "5"}) {
    EXPECT_TRUE(
        all(kTimer, {call("set_timer", broken)}).starts_with("type; set_timer: expected arguments as a JSON object"));
  }
}

TEST(CallMatch, NoCall) {
  EXPECT_EQ(verdict(CallExpectation::none(), {}), "right");
  EXPECT_EQ(verdict(CallExpectation::none(), {call("stop", "{}")}), "trigger; expected no call, got stop");
}

TEST(CallMatch, AnyCall) {
  EXPECT_EQ(verdict(CallExpectation::some(), {}), "trigger; expected a call, got none");
  EXPECT_EQ(verdict(CallExpectation::some(), {call("stop", "{}"), call("dance", "{")}), "right");
}

// Published data expects some calls that none can be: they fail, and the rest of the data counts.
TEST(CallMatch, CallsThatNoneCanBe) {
  const CallRules rules{.unmeetable = true};
  const char* unknown = R"({"set_timer": {"minutes": [5], "color": ["red", ""]}})";
  EXPECT_EQ(all(unknown, {call("set_timer", R"({"minutes": 5})")}, rules), "right");
  EXPECT_EQ(all(unknown, {call("set_timer", R"({"minutes": 5, "color": "red"})")}, rules),
            "extra; set_timer.color: expected no such argument, got \"red\"");
  const char* demanded = R"({"set_timer": {"minutes": [5], "color": ["red"]}})";
  EXPECT_EQ(all(demanded, {call("set_timer", R"({"minutes": 5})")}, rules),
            "missing; set_timer.color: expected a value, got none");
  const char* empty = R"({"set_timer": {"minutes": []}})";
  EXPECT_EQ(all(empty, {call("set_timer", R"({"minutes": 5})")}, rules),
            "value; set_timer.minutes: expected nothing, got 5");
  EXPECT_EQ(area("where", R"([{"city": "Udupi"}, {"city": ["Mysuru"]}])", R"({"city": "Udupi"})", rules), "value");
  EXPECT_EQ(area("where", R"([{"city": "Udupi"}, {"city": ["Mysuru"]}])", R"({"city": "Mysuru"})", rules), "right");
  const char* unlisted = R"({"set_timer": {"label": ["tea"]}})";
  EXPECT_EQ(all(unlisted, {call("set_timer", R"({"label": "tea"})")}, rules),
            "missing; set_timer.minutes: expected a value, got none");
  EXPECT_EQ(all(unlisted, {call("set_timer", R"({"label": "tea", "minutes": 5})")}, rules),
            "extra; set_timer.minutes: expected no such argument, got 5");
}

TEST(CallMatch, OmittedParameters) {
  const char* search = R"({"web_search": {"query": ["x"], "max": [3]}})";
  EXPECT_EQ(all(search, {call("web_search", R"({"query": "x"})")}),
            "missing; web_search.max: expected a value, got none");
  const char* optional = R"({"web_search": {"query": ["x"], "max": ["", 3]}})";
  EXPECT_EQ(all(optional, {call("web_search", R"({"query": "x"})")}), "right");
  EXPECT_EQ(all(optional, {call("web_search", R"({"query": "x", "max": 4})")}),
            "value; web_search.max: expected 3, got 4");
  // Required by the tool, whatever the recipe would forgive.
  EXPECT_EQ(all(R"({"web_search": {"query": ["", "x"]}})", {call("web_search", "{}")}),
            "missing; web_search.query: expected a value, got none");
}

TEST(CallMatch, ParallelCallsInAnyOrder) {
  const char* two = R"([{"set_timer": {"minutes": [5]}}, {"set_timer": {"minutes": [10]}}, {"stop": {}}])";
  const ToolCall five = call("set_timer", R"({"minutes": 5})"), ten = call("set_timer", R"({"minutes": 10})");
  const ToolCall stop = call("stop", "{}");
  EXPECT_EQ(all(two, {five, ten, stop}), "right");
  EXPECT_EQ(all(two, {stop, ten, five}), "right");
  EXPECT_EQ(all(two, {five, five, stop}), "value; set_timer.minutes: expected 10, got 5");
  EXPECT_EQ(all(two, {five, stop, stop}), "name; expected a call of set_timer, got stop");
  EXPECT_EQ(all(two, {five, stop}), "count; expected 3 calls, got 2: set_timer, stop");
  // Greedy over the expected calls: the first takes a call that the second needs.
  EXPECT_EQ(all(R"([{"set_timer": {"minutes": [5, 10]}}, {"set_timer": {"minutes": [5]}}])", {five, ten}),
            "value; set_timer.minutes: expected 5, got 10");
}

TEST(CallMatch, AnyOfSeveral) {
  const char* either = R"([{"set_timer": {"minutes": [5]}}, {"web_search": {"query": ["tea"]}}])";
  EXPECT_EQ(any(either, {call("set_timer", R"({"minutes": 5})")}), "right");
  EXPECT_EQ(any(either, {call("web_search", R"({"query": "Tea"})")}), "right");
  EXPECT_EQ(any(either, {call("web_search", R"({"query": "milk"})")}),
            "value; web_search.query: expected \"tea\", got \"milk\"");
  EXPECT_EQ(any(either, {}), "trigger; expected a call of set_timer, got none");
  EXPECT_EQ(any(either, {call("stop", "{}"), call("stop", "{}")}), "count; expected 1 call, got 2: stop, stop");
}

TEST(CallMatch, DottedNamesAreSentWithUnderscores) {
  EXPECT_EQ(all(R"({"geo.area": {"side": [2.0]}})", {call("geo_area", R"({"side": 2})")}), "right");
  EXPECT_EQ(all(R"({"geo_area": {"side": [2.0]}})", {call("geo.area", R"({"side": 2})")}), "right");
}

TEST(CallMatch, Strings) {
  EXPECT_EQ(area("either", R"(["St. Mary's-Road, 5/6"])", R"("st marys road 56")"), "value");
  EXPECT_EQ(area("either", R"(["St. Mary's-Road, 5/6"])", R"("ST_MARY\"S ROAD^5*6")"), "right");
  EXPECT_EQ(area("either", R"(["ÉCOLE"])", R"("école")"), "right");
  EXPECT_EQ(area("either", R"(["tea", null])", "null"), "right");
}

TEST(CallMatch, Types) {
  EXPECT_EQ(area("side", "[5]", "5"), "right");
  EXPECT_EQ(area("side", "[5.0]", "5"), "right");
  EXPECT_EQ(area("side", "[5]", "5.0"), "right");
  EXPECT_EQ(area("side", "[1]", "true"), "type");
  EXPECT_EQ(area("round", "[true]", "1"), "type");
  EXPECT_EQ(area("round", "[true]", "false"), "value");
  EXPECT_EQ(area("ref", "[5]", "5.0"), "type");
  EXPECT_EQ(area("ref", "[5]", "\"5\""), "type");
  EXPECT_EQ(area("anything", R"(["x"])", "5"), "type");  // any is string
  EXPECT_EQ(area("anything", "[5]", "5"), "right");      // unless the answers are not
  EXPECT_EQ(area("points", "[[1.5, 2]]", "[1.5, 2.0]"), "right");
  EXPECT_EQ(area("points", "[[1.5]]", R"("1.5")"), "type");  // tuple is array
  EXPECT_EQ(area("where", "[{}]", "[]"), "type");            // dict is object
}

// An answer of another type than the schema's names a variable: it is accepted, letter by letter.
TEST(CallMatch, Variables) {
  EXPECT_EQ(area("side", R"(["my_side"])", R"("my_side")"), "right");
  EXPECT_EQ(area("side", R"(["my_side"])", R"("my side")"), "value");
  EXPECT_EQ(area("side", R"(["my_side"])", "5"), "value");
}

TEST(CallMatch, Arrays) {
  EXPECT_EQ(area("names", R"([["a b", "C"]])", R"(["AB", "c"])"), "right");
  EXPECT_EQ(area("names", R"([["a", "b"]])", R"(["b", "a"])"), "value");
  EXPECT_EQ(area("names", R"([["a", "b"], ["b", "a"]])", R"(["b", "a"])"), "right");
  EXPECT_EQ(area("names", R"([["a"]])", R"(["a", "a"])"), "value");
  EXPECT_EQ(area("names", R"([["a"]])", "[1]"), "type");
  EXPECT_EQ(area("names", "[[1]]", "[1]"), "right");  // the answer says the type
  EXPECT_EQ(area("names", R"([["a"]])", R"("a")"), "type");
  EXPECT_EQ(area("names", "[[]]", "[]"), "right");
  EXPECT_EQ(area("names", R"([["a"], ""])", "[]"), "right");  // nothing is nothing
}

TEST(CallMatch, Objects) {
  const std::string allowed = R"([{"city": ["New York", "NYC"], "zip": ["", 5], "tags": [["a", "b"], ""]}])";
  EXPECT_EQ(area("where", allowed, R"({"city": "new-york"})"), "right");
  EXPECT_EQ(area("where", allowed, R"({"zip": 5, "city": "nyc"})"), "right");
  EXPECT_EQ(area("where", allowed, R"({"city": "nyc", "zip": 6})"), "value");
  EXPECT_EQ(area("where", allowed, R"({"zip": 5})"), "value");
  EXPECT_EQ(area("where", allowed, R"({"city": "nyc", "land": "US"})"), "value");
  EXPECT_EQ(area("where", allowed, R"({"city": "nyc", "tags": ["a", "b"]})"), "right");
  EXPECT_EQ(area("where", allowed, R"({"city": "nyc", "tags": ["A", "b"]})"), "value");  // as BFCL: by value
  EXPECT_EQ(area("where", R"([{"in": [{"x": 1, "y": 2}]}])", R"({"in": {"y": 2, "x": 1}})"), "right");
  EXPECT_EQ(area("where", "[{}]", "{}"), "right");
  EXPECT_EQ(area("where", "[{}]", R"({"a": 1})"), "value");
}

TEST(CallMatch, ArraysOfObjects) {
  const std::string allowed = R"([[{"name": ["A"], "n": ["", 1]}, {"name": ["B"]}]])";
  EXPECT_EQ(area("stops", allowed, R"([{"name": "a"}, {"name": "b"}])"), "right");
  EXPECT_EQ(area("stops", allowed, R"([{"name": "a", "n": 1}, {"name": "b"}])"), "right");
  EXPECT_EQ(area("stops", allowed, R"([{"name": "b"}, {"name": "a"}])"), "value");
  EXPECT_EQ(area("stops", allowed, R"([{"name": "a"}])"), "value");
  EXPECT_EQ(area("stops", allowed, R"(["a", "b"])"), "type");
}

TEST(CallMatch, RegexesAndSchemas) {
  EXPECT_EQ(area("either", R"([{"~": "(?i)arun.*trip"}])", R"("What did Arun say about the trip?")"), "right");
  EXPECT_EQ(area("either", R"([{"~": "(?i)arun"}])", R"("Leela")"), "value");
  EXPECT_EQ(area("either", R"([{"~": "^Arun's$"}])", R"("Arun’s")"), "right");
  EXPECT_EQ(area("side", R"([{"~": "^[1-5]$"}])", "3"), "right");
  EXPECT_EQ(area("side", R"([{"~": "^[1-5]$"}])", "\"3\""), "type");
  EXPECT_EQ(area("names", R"([[{"~": "^a"}, "b"]])", R"(["apple", "B"])"), "right");
  EXPECT_EQ(area("where", R"([{"city": [{"~": "^B"}]}])", R"({"city": "Bangalore"})"), "right");
  EXPECT_EQ(area("where", R"([{"schema": {"required": ["x"]}}])", R"({"x": 1})"), "right");
  EXPECT_EQ(area("where", R"([{"schema": {"required": ["x"]}}])", "{}"), "value");
  EXPECT_EQ(area("where", R"([{"schema": ["a"]}])", R"({"schema": "a"})"), "right");  // an object with that key

  EXPECT_EQ(all(R"({"web_search": {"query": ["tea", {"~": "milk"}]}})", {call("web_search", R"({"query": "x"})")}),
            "value; web_search.query: expected \"tea\" or a match of \"milk\", got \"x\"");
  const auto slow =
      CallExpectation::all_of(json(R"({"web_search": {"query": [{"~": "(?:a+)+[bc]"}]}})"), json(kTools), "t");
  ASSERT_TRUE(slow.ok());
  const Calls calls = {call("web_search", R"({"query": ")" + std::string(64, 'a') + R"("})")};
  EXPECT_EQ(slow->mismatch(calls).status().code(), Code::unavailable);
}

TEST(CallMatch, ValuesAsText) {
  const CallRules text{.values_as_text = true};
  EXPECT_EQ(area("side", "[5]", "\"5\"", text), "right");
  EXPECT_EQ(area("side", R"(["new int[]{1, 2}"])", R"("new int[]{1,2}")", text), "right");
  EXPECT_EQ(area("round", "[true]", "\"True\"", text), "right");
  EXPECT_EQ(area("names", R"([["a", "b"]])", R"("['a', 'b']")", text), "right");
  EXPECT_EQ(area("names", R"([["a", "b"]])", R"(["a", "b"])", text), "right");
  EXPECT_EQ(area("side", "[5]", "\"6\"", text), "value");
}

TEST(CallMatch, RefusesRecipesThatNoCallCouldMeet) {
  for (const char* bad :
       {"5", "{}", "[]", "[5]", R"({"set_timer": {"minutes": [5]}, "stop": {}})", R"({"set_timer": []})",
        R"({"dance": {}})", R"({"set_timer": {"minutes": 5}})", R"({"set_timer": {"minutes": []}})",
        R"({"set_timer": {"minutes": [5], "color": ["red"]}})", R"({"set_timer": {}})",
        R"({"web_search": {"query": [{"~": "("}]}})", R"({"web_search": {"query": [{"~": 5}]}})",
        R"({"web_search": {"query": [{"schema": {"type": "strnig"}}]}})",
        R"({"web_search": {"query": [{"schema": {"multipleOf": 2}}]}})", R"({"web_search": {"query": [{"a": 1}]}})"}) {
    const auto expectation = CallExpectation::all_of(json(bad), json(kTools), "expect.call");
    ASSERT_FALSE(expectation.ok()) << bad;
    EXPECT_EQ(expectation.status().code(), Code::corrupt) << bad;
    EXPECT_TRUE(expectation.status().message().starts_with("expect.call")) << expectation.status().text();
  }
  EXPECT_FALSE(CallExpectation::any_of(json(R"({"stop": {}})"), json(kTools), "t").ok());
  EXPECT_FALSE(CallExpectation::all_of(json(R"({"stop": {}})"), Json(), "t").ok());
}

}  // namespace
}  // namespace nibble::gate
