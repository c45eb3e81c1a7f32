// From a chat request to what the model reads and what the parser of its reply must know.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serve/chat_request.h"
#include "serve/reply.h"
#include "serve/service.h"

namespace nibble::serve {

struct ChatPrompt {
  std::string text;
  std::vector<int32_t> ids;
  bool reasoning_open = false;  // the model goes on inside a think block

  Json messages, tools;          // as the template was given them
  std::optional<bool> thinking;  // likewise enable_thinking
};

/// Normalises, renders and tokenises. Complaints of the template are 400 template_error.
std::optional<ApiError> make_chat_prompt(const Service& service, const ChatRequest& request, ChatPrompt& out);

/// Logs, once each, what of a prompt differs from those that the model was trained with.
void watch_prompt(const Service& service, const ChatPrompt& prompt);

/// exceed_context_size_error unless at least one token of the context is left for the reply; an empty prompt, which no
/// model can continue, is refused too.
std::optional<ApiError> check_fits(const Service& service, size_t prompt_tokens, const char* param);

ReplyOptions reply_options(const Service& service, const ChatRequest& request, bool reasoning_open);

/// The engine's part of a request: sampling, limits, stop ids.
engine::Request engine_request(const Service& service, const GenerationOptions& options, std::vector<int32_t> prompt);
/// tool_choice "none": the token that opens a call is never sampled.
void mask_calls(const Service& service, const ChatRequest& request, engine::Request& job);

}  // namespace nibble::serve
