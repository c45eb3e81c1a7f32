// For tests: small recipes whose every word is here.
#pragma once

#include <string>

#include "base/check.h"
#include "synth/recipe.h"

namespace nibble::synth::test {

inline const char* const kTools = R"([
  {"type": "function", "function": {"name": "search_memory", "parameters": {"type": "object",
    "properties": {"query": {"type": "string"}}, "required": ["query"]}}},
  {"type": "function", "function": {"name": "set_timer", "parameters": {"type": "object", "additionalProperties": false,
    "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}}}])";

/// Merged over a write recipe with one category "talk".
inline Recipe write_recipe(const Json& fields = Json::object()) {
  Json json = {
      {"kind", "write"},
      {"system", "You are Annie, the companion of {user}."},
      {"tools", Json::parse(kTools)},
      {"data", {{"people", {{{"user", "Meera"}}, {{"user", "Arvind"}}}}, {"topics", {"rain", "trains", "films"}}}},
      {"persona", "people"},
      {"prompt", "Write {count} conversations.\nKind ({category}, batch {batch}): {brief}\n{system}\n{tools}\n{rows}"},
      {"repair",
       "You wrote conversations for training. {count} of them\nKind ({category}): {brief}\nThe "
       "conversations:\n{rows}\nWrite each of them"},
      {"max_tokens", 4000},
      {"categories",
       {{{"id", "talk"},
         {"quota", 10},
         {"turns", {1, 3}},
         {"brief", "small talk of {user}"},
         {"draw", {{"topic", "topics"}}},
         {"rows", {"about {topic}"}}}}}};
  json.update(fields);
  return parse_recipe(json.dump(), "test.json").value();
}

/// A roll recipe with one category "ask": who said what, found or not.
inline Recipe roll_recipe(const Json& fields = Json::object()) {
  Json json = {
      {"kind", "roll"},
      {"system", "You are Annie. The user is {name}."},
      {"tools", Json::parse(kTools)},
      {"data",
       {{"names", {"Meera", "Arvind"}},
        {"people", {"Arun", "Leela", "Om", "Padma", "Jaya"}},
        {"topics", {"the car", "the dog", "the visa", "the exam"}},
        {"said", {"it is fine", "it is late"}}}},
      {"persona", {{"name", "names"}}},
      {"params", {{"temperature", 0}}},
      {"max_tokens", 100},
      {"rules", {{"tokens", {1, 2048}}}},
      {"set", {{"tool_calls", 0}}},
      {"holdout", {{"key", "pairs"}}},
      {"exchanges",
       {{{"id", "memory"},
         {"draw", {{"person", "people"}, {"topic", "topics"}, {"said", "said"}}},
         {"pair", {"{person}", "{topic}"}},
         {"user", {"What did {person} say about {topic}?"}},
         {"steps",
          {{{"call", "search_memory"}, {"words", {"{person}"}}, {"result", {{"results", {"{person} said {said}"}}}}},
           {{"must", {"{said}"}}}}}},
        {{"id", "hello"}, {"user", {"Hello.", "Hi."}}, {"steps", {{{"must_any", {"hello {name}", "hi {name}"}}}}}}}},
      {"categories", {{{"id", "ask"}, {"quota", 4}, {"turns", {1, 3}}, {"exchanges", {{"memory", 3}, {"hello", 1}}}}}}};
  json.update(fields);
  return parse_recipe(json.dump(), "test.json").value();
}

}  // namespace nibble::synth::test
