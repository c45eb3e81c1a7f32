#include "serve/router.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace nibble::serve {
namespace {

constexpr std::array<Route, 9> kRoutes = {{
    {"POST", "/v1/chat/completions", chat_completions},
    {"POST", "/v1/completions", completions},
    {"GET", "/v1/models", list_models},
    {"GET", "/v1/models/", get_model},
    {"POST", "/tokenize", tokenize},
    {"POST", "/detokenize", detokenize},
    {"POST", "/apply-template", apply_template},
    {"POST", "/v1/parse", parse_reply_text},
    {"GET", "/health", health, /*needs_key=*/false},
}};

// Every path has one method.
const Route* find_route(std::string_view path) {
  const auto matches = [path](const Route& route) {
    return route.path.ends_with('/') ? path.starts_with(route.path) : path == route.path;
  };
  const auto* it = std::ranges::find_if(kRoutes, matches);
  return it == kRoutes.end() ? nullptr : it;
}

bool has_method(const Route& route, std::string_view method) {
  return method == route.method || (method == "HEAD" && route.method == "GET");
}

std::string allow(const Route& route) {
  return route.method == "GET" ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
}

HttpResponse method_not_allowed(const Route& route, std::string_view method) {
  ApiError error = bad_body(fmt::format("{}: expected {}, got {}", route.path, route.method, method));
  error.status = 405;
  error.code = "method_not_allowed";
  HttpResponse response = error.response();
  response.headers.emplace_back("Allow", allow(route));
  return response;
}

ApiError no_key() {
  return {.status = 401,
          .type = "authentication_error",
          .code = "invalid_api_key",
          .message = "expected the server's key as Authorization: Bearer KEY or X-Api-Key: KEY"};
}

}  // namespace

std::span<const Route> routes() {
  return kRoutes;
}

std::optional<HttpResponse> admit(const Service& service, const KeyCheck& key, const HttpRequest& request) {
  const ServeOptions& options = service.options;
  if (const auto error = check_host(request, options.host, options.allowed_hosts)) return error->response();
  const Route* route = find_route(request.path);
  // A path that does not exist asks for the key too: without it nothing can be learnt here.
  if ((!route || route->needs_key) && !key.allows(request)) return no_key().response();
  if (!route) return not_found(fmt::format("{}: no such path", request.path.substr(0, 200))).response();
  if (request.method == "OPTIONS") return HttpResponse{204, {{"Allow", allow(*route)}}, ""};
  if (!has_method(*route, request.method)) return method_not_allowed(*route, request.method);
  if (route->method == "POST") {
    if (const auto error = check_content_type(request)) return error->response();
  }
  if (service.draining) return draining().response();
  return std::nullopt;
}

void dispatch(const std::shared_ptr<Service>& service, const std::shared_ptr<Exchange>& exchange) {
  if (exchange->closed()) return;
  const Route* route = find_route(exchange->request().path);
  NIBBLE_CHECK(route != nullptr);  // admit() let it through
  if (const auto error = route->handle(service, exchange)) exchange->respond(error->response());
}

}  // namespace nibble::serve
