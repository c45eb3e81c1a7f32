// Shared by the tests of the parser: chunkings, a run that checks the rules for events, and the weather tools of the
// vectors.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "text/chat_parser.h"
#include "text/utf8.h"

namespace nibble::text {

// The two tools that the curated vectors use.
inline Json weather_tools() {
  return Json::parse(R"([{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
      "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"},
      "opts": {"type": "object"}, "tags": {"type": "array"}, "note": {"type": ["string", "null"]},
      "f": {"type": "number"}}}}}, {"type": "function", "function": {"name": "get_time",
      "parameters": {"type": "object", "properties": {}}}}])");
}

using Chunks = std::vector<std::string_view>;

inline Chunks whole(std::string_view text) {
  return {text};
}

inline Chunks per_byte(std::string_view text) {
  Chunks chunks;
  for (size_t i = 0; i < text.size(); ++i) chunks.push_back(text.substr(i, 1));
  return chunks;
}

// Cuts only between characters, as the server does; at most `longest` characters a chunk.
inline Chunks random_chunks(std::string_view text, Rng& rng, uint32_t longest) {
  Chunks chunks;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    for (uint32_t n = 1 + rng.below(longest); n > 0 && end < text.size(); --n) {
      end += read_utf8(text.substr(end)).size;
    }
    chunks.push_back(text.substr(at, end - at));
    at = end;
  }
  return chunks;
}

// What makes a prefix of an object whole; written for this test and independent of the scanner.
inline std::string close_object(std::string_view prefix) {
  std::string open;
  bool in_string = false;
  for (size_t i = 0; i < prefix.size(); ++i) {
    const char c = prefix[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      open += c == '{' ? '}' : ']';
    } else if (c == '}' || c == ']') {
      open.pop_back();
    }
  }
  std::string closed(prefix);
  if (in_string) closed += '"';
  closed.append(open.rbegin(), open.rend());
  return closed.empty() ? "{}" : closed;
}

struct Replay {
  ParsedMessage message;
  uint64_t discarded = 0;
};

// Feeds the chunks. With `whole_characters`, checks after every feed that calls are well-formed sequences of events,
// that what was emitted of arguments closes to JSON, and that no event splits a character.
inline Replay replay(const ParserOptions& options, const Chunks& chunks, bool cut = false,
                     bool whole_characters = true) {
  ChatParser parser(options);
  MessageBuilder builder;
  bool in_call = false;
  const auto take = [&](const std::vector<ParseEvent>& events) {
    for (const ParseEvent& event : events) {
      const bool of_call = event.kind == ParseEvent::call_args || event.kind == ParseEvent::call_end;
      EXPECT_EQ(of_call, in_call) << "events of a call must stand together";
      if (event.kind == ParseEvent::call_begin) in_call = true;
      if (event.kind == ParseEvent::call_end) in_call = false;
      EXPECT_EQ(event.text.empty(), event.kind == ParseEvent::call_end);
      EXPECT_TRUE(!whole_characters || valid_utf8(event.text)) << event.text;
      builder.add(event);
    }
    if (whole_characters && in_call) {
      const std::string closed = close_object(builder.message().calls.back().arguments);
      EXPECT_TRUE(Json::accept(closed)) << closed;
    }
  };
  for (const std::string_view chunk : chunks) {
    std::vector<ParseEvent> events;
    parser.feed(chunk, events);
    take(events);
  }
  std::vector<ParseEvent> events;
  parser.finish(cut, events);
  take(events);
  EXPECT_FALSE(in_call);
  return {builder.take(), parser.discarded_bytes()};
}

inline std::string describe(const ParsedMessage& message) {
  std::string text = "content " + json_string(message.content) + " reasoning " + json_string(message.reasoning);
  for (const ParsedCall& call : message.calls) {
    text += "\n  " + call.name + " " + call.arguments + (call.healed ? " healed" : "");
  }
  return text;
}

inline void PrintTo(const ParsedMessage& message, std::ostream* out) {
  *out << describe(message);
}

}  // namespace nibble::text
