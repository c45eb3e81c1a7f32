// Origin: where a character of rendered text came from. Every string inside the template engine carries it.
#pragma once

#include <cstdint>

namespace nibble::text {

/// The part of the input that a character came from.
enum class Field : uint8_t {
  literal,     // the template's own text, and what it computes (lengths, loop indices)
  role,        // messages[i].role
  content,     // messages[i].content
  reasoning,   // messages[i].reasoning_content
  tool_calls,  // messages[i].tool_calls, at any depth
  other,       // any other key of messages[i]
  tools,       // the tool definitions
  kwargs,      // chat_template_kwargs
};

struct Origin {
  int message = -1;              // index into `messages` of the data; -1 where the character is not message data
  Field field = Field::literal;  // literal iff the template wrote it
  int turn = -1;                 // message that the template's loop stood at when it put the character down; -1 = none
  bool generation = false;       // inside {% generation %}…{% endgeneration %}

  bool operator==(const Origin&) const = default;
};

}  // namespace nibble::text
