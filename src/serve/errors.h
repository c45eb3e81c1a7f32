// Errors of the API, in OpenAI's form: {"error":{"message","type","param","code"}}, all four keys always present.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "io/json.h"
#include "serve/http_types.h"

namespace nibble::serve {

struct ApiError {
  int status = 400;
  std::string type = "invalid_request_error";
  std::string code = {};
  std::string message = {};
  std::optional<std::string> param = {};
  // Only for exceed_context_size_error.
  std::optional<int64_t> n_prompt_tokens = {}, n_ctx = {};

  /// 401 carries WWW-Authenticate; 429 and 503 carry Retry-After, and retry-after-ms, which OpenAI's clients read
  /// first.
  HttpResponse response() const;
  Json json() const;
};

/// A field whose value the API does not allow, named by its path in the body ("messages[2].content").
ApiError invalid_value(std::string param, std::string message);
/// A value that the API allows and this server does not do yet.
ApiError not_supported(std::string param, std::string what);
/// A body that is not the JSON object it should be.
ApiError bad_body(std::string message);

ApiError not_found(std::string message);
ApiError model_not_found(std::string_view model);
ApiError context_overflow(int64_t n_prompt_tokens, int64_t n_ctx);
ApiError queue_full();
ApiError draining();
/// The GPU failed; `why` may be told, as it says nothing of requests.
ApiError device_lost(std::string why);
ApiError internal_error(std::string message = "the server failed to answer this request");

/// The error that stands for a status code of the HTTP layer itself (400, 413, 431, …).
ApiError protocol_error(int status, std::string_view message);

/// UTF-8 that is not valid becomes U+FFFD; never throws.
std::string dump(const Json& json);

HttpResponse json_response(const Json& json);

}  // namespace nibble::serve
