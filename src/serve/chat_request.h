// The body of POST /v1/chat/completions and /apply-template, checked field by field.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "serve/errors.h"
#include "serve/generation_options.h"

namespace nibble::serve {

struct ChatRequest {
  GenerationOptions generation;
  Json messages = Json::array();  // see chat_messages.h
  Json tools = Json::array();
  bool calls_allowed = true;  // false: tool_choice "none"
  bool parallel_tool_calls = true;

  Json template_kwargs = Json::object();  // names and types not yet held against the template
  std::optional<bool> thinking;           // from reasoning_effort
  bool add_generation_prompt = true;
  bool include_reasoning = true;

  std::vector<std::string> unknown_fields;
};

/// Fills `out`, or says what is wrong.
std::optional<ApiError> read_chat_request(const Json& body, ChatRequest& out);

}  // namespace nibble::serve
