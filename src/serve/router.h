// The table of routes, and what is checked before any of them is reached.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "serve/guard.h"
#include "serve/handlers.h"

namespace nibble::serve {

struct Route {
  std::string_view method;  // GET or POST; GET answers HEAD too
  std::string_view path;    // ends with '/': everything that begins so
  Handler* handle;
  bool needs_key = true;
};

std::span<const Route> routes();

/// Before the body is read: Host, key, path, method, content type. 405 carries Allow; OPTIONS is answered with it.
std::optional<HttpResponse> admit(const Service& service, const KeyCheck& key, const HttpRequest& request);

/// Runs the handler of an admitted request, on a worker.
void dispatch(const std::shared_ptr<Service>& service, const std::shared_ptr<Exchange>& exchange);

}  // namespace nibble::serve
