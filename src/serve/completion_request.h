// The body of POST /v1/completions, checked field by field.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "serve/errors.h"
#include "serve/generation_options.h"

namespace nibble::serve {

/// Text, in which control tokens are recognised, or token ids.
using CompletionPrompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest {
  GenerationOptions generation;
  std::vector<CompletionPrompt> prompts;  // 1..64, one choice each
  std::vector<std::string> unknown_fields;
};

std::optional<ApiError> read_completion_request(const Json& body, CompletionRequest& out);

/// A list of token ids, 0 <= id < 2^31; `where` names it in the error.
std::optional<ApiError> read_token_ids(const Json& list, const std::string& where, std::vector<int32_t>& out);

}  // namespace nibble::serve
