// The handlers behind the routes. Each runs on a worker thread and either answers, sets an answer going, or returns
// the error that the router then sends.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "serve/chat_request.h"
#include "serve/errors.h"
#include "serve/service.h"

namespace nibble::serve {

using Handler = std::optional<ApiError>(const std::shared_ptr<Service>&, const std::shared_ptr<Exchange>&);

Handler chat_completions, completions;         // POST /v1/chat/completions, /v1/completions
Handler list_models, get_model, health;        // GET /v1/models, /v1/models/{id}, /health
Handler tokenize, detokenize, apply_template;  // POST /tokenize, /detokenize, /apply-template
Handler parse_reply_text;                      // POST /v1/parse

/// Parses a chat body and checks that the model it names is served; unknown fields are noted.
std::optional<ApiError> read_chat(Service& service, std::string_view body, ChatRequest& out);

}  // namespace nibble::serve
