// What stands between the network and the handlers: the Host header (against DNS rebinding), the key, the content type.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/errors.h"
#include "serve/http_types.h"

namespace nibble::serve {

/// "localhost", names under it, 127.0.0.0/8, ::1, with or without brackets.
bool is_loopback(std::string_view host);

/// The host of a Host header: without port and brackets, in lower case. "[::1]:80" gives "::1".
std::string host_of(std::string_view header);

/// Compares keys by their SHA-256 digests, in constant time. Without a key everything is allowed.
class KeyCheck {
 public:
  explicit KeyCheck(std::string_view key);
  /// `Authorization: Bearer KEY` or `X-Api-Key: KEY`.
  bool allows(const HttpRequest& request) const;

 private:
  std::optional<std::array<unsigned char, 32>> digest_;
};

/// Host must be loopback, the address that the connection came in on, the bind address, or an allowed name. A page on a
/// name that someone points at this machine fails here.
std::optional<ApiError> check_host(const HttpRequest& request, std::string_view bind_host,
                                   const std::vector<std::string>& allowed);

/// Bodies are JSON and say so, which a form or script of a foreign web page cannot; none is compressed.
std::optional<ApiError> check_content_type(const HttpRequest& request);

}  // namespace nibble::serve
