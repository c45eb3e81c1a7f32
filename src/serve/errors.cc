#include "serve/errors.h"

#include <fmt/format.h>

namespace nibble::serve {

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

HttpResponse json_response(const Json& json) {
  return {200, {{"Content-Type", "application/json"}}, dump(json)};
}

Json ApiError::json() const {
  Json error = {{"message", message},
                {"type", type},
                {"param", param ? Json(*param) : Json(nullptr)},
                {"code", code.empty() ? Json(nullptr) : Json(code)}};
  if (n_prompt_tokens) error["n_prompt_tokens"] = *n_prompt_tokens;
  if (n_ctx) error["n_ctx"] = *n_ctx;
  return {{"error", std::move(error)}};
}

HttpResponse ApiError::response() const {
  HttpResponse response = json_response(json());
  response.status = status;
  if (status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (status == 429 || status == 503) {
    response.headers.emplace_back("Retry-After", "1");
    response.headers.emplace_back("retry-after-ms", "1000");
  }
  return response;
}

ApiError invalid_value(std::string param, std::string message) {
  return {.code = "invalid_value", .message = fmt::format("{}: {}", param, message), .param = std::move(param)};
}

ApiError not_supported(std::string param, std::string what) {
  return {.code = "invalid_value",
          .message = fmt::format("{}: {} is not supported yet", param, what),
          .param = std::move(param)};
}

ApiError bad_body(std::string message) {
  return {.code = "invalid_value", .message = std::move(message)};
}

ApiError not_found(std::string message) {
  return {.status = 404, .code = "not_found", .message = std::move(message)};
}

ApiError model_not_found(std::string_view model) {
  return {.status = 404,
          .code = "model_not_found",
          .message = fmt::format("model: expected one that GET /v1/models lists, got \"{}\"", model.substr(0, 200)),
          .param = "model"};
}

ApiError context_overflow(int64_t n_prompt_tokens, int64_t n_ctx) {
  return {
      .type = "exceed_context_size_error",
      .code = "context_length_exceeded",
      .message = fmt::format("the prompt has {} tokens; expected at most {}, so that one of the context's {} is left "
                             "for the reply",
                             n_prompt_tokens, n_ctx - 1, n_ctx),
      .n_prompt_tokens = n_prompt_tokens,
      .n_ctx = n_ctx};
}

ApiError queue_full() {
  return {.status = 429, .type = "rate_limit_error", .code = "queue_full", .message = "the queue is full; try again"};
}

ApiError draining() {
  return {.status = 503, .type = "unavailable_error", .code = "draining", .message = "the server is shutting down"};
}

ApiError device_lost(std::string why) {
  return {.status = 503, .type = "unavailable_error", .code = "device_lost", .message = std::move(why)};
}

ApiError internal_error(std::string message) {
  return {.status = 500, .type = "server_error", .code = "internal", .message = std::move(message)};
}

ApiError protocol_error(int status, std::string_view message) {
  ApiError error{.status = status, .code = "invalid_value", .message = std::string(message)};
  if (status == 413) error.code = "body_too_large";
  if (status == 415) error.code = "bad_content_type";
  if (status == 431) error.code = "headers_too_large";
  return error;
}

}  // namespace nibble::serve
