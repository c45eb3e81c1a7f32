// What a server can do, asked once before a run.
#pragma once

#include <optional>
#include <string>

#include "gate/chat_endpoint.h"
#include "gate/recipe.h"

namespace nibble::gate {

/// Nothing where the server gave no clear answer.
struct Capabilities {
  std::optional<bool> tools;            // takes tool definitions
  std::optional<bool> json_schema;      // answers as response_format asks
  std::optional<bool> logprobs;         // gives log-probabilities where they are asked for
  std::optional<bool> template_kwargs;  // takes chat_template_kwargs
  std::string reasoning_field;          // of its messages: "reasoning_content", "reasoning"; empty: none was seen
};

/// Five requests of a few tokens each, not tried again. `cancelled`; nothing else is an error: what a server refuses or
/// fails at is what this is to find out.
Result<Capabilities> probe(ChatEndpoint& endpoint);
Json to_json(const Capabilities& capabilities);

/// What the case asks of a server that it is known to lack: "tools", "json_schema"; empty: nothing.
std::string lacking(const Case& one, const Capabilities& capabilities);

}  // namespace nibble::gate
