#include "serve/guard.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace nibble::serve {
namespace {

std::array<unsigned char, 32> sha256(std::string_view text) {
  std::array<unsigned char, 32> digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string_view key_of(const HttpRequest& request) {
  const std::string_view authorization = request.header("Authorization");
  constexpr std::string_view kScheme = "bearer ";
  if (lower(authorization.substr(0, kScheme.size())) == kScheme) return trim(authorization.substr(kScheme.size()));
  return trim(request.header("X-Api-Key"));
}

}  // namespace

std::string host_of(std::string_view header) {
  header = trim(header);
  if (header.starts_with('[')) {
    header = header.substr(1, header.find(']') == std::string_view::npos ? 0 : header.find(']') - 1);
  } else if (std::ranges::count(header, ':') == 1) {
    header = header.substr(0, header.find(':'));
  }
  if (header.ends_with('.')) header.remove_suffix(1);
  return lower(header);
}

bool is_loopback(std::string_view host) {
  const std::string name = host_of(host);
  if (name == "localhost" || name.ends_with(".localhost")) return true;
  in_addr v4{};
  if (inet_pton(AF_INET, name.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, name.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

KeyCheck::KeyCheck(std::string_view key) {
  if (!key.empty()) digest_ = sha256(key);
}

bool KeyCheck::allows(const HttpRequest& request) const {
  if (!digest_) return true;
  const auto given = sha256(key_of(request));
  return CRYPTO_memcmp(given.data(), digest_->data(), given.size()) == 0;
}

std::optional<ApiError> check_host(const HttpRequest& request, std::string_view bind_host,
                                   const std::vector<std::string>& allowed) {
  const std::string_view header = request.header("Host");
  if (header.empty()) {
    if (request.version < 11) return std::nullopt;
    return bad_body("Host: expected this header, got none");
  }
  const std::string host = host_of(header);
  const auto is_host = [&host](std::string_view name) { return host_of(name) == host; };
  if (is_loopback(host) || is_host(request.local_address) || is_host(bind_host) ||
      std::ranges::any_of(allowed, is_host)) {
    return std::nullopt;
  }
  return ApiError{.status = 403,
                  .type = "permission_error",
                  .code = "host_not_allowed",
                  .message = fmt::format("Host: expected a loopback name, the bind address or one of --allowed-hosts, "
                                         "got \"{}\"",
                                         header.substr(0, 200))};
}

std::optional<ApiError> check_content_type(const HttpRequest& request) {
  const std::string encoding = lower(trim(request.header("Content-Encoding")));
  if (!encoding.empty() && encoding != "identity") {
    return protocol_error(415, fmt::format("Content-Encoding: expected identity, got \"{}\"", encoding.substr(0, 60)));
  }
  const std::string type = lower(request.header("Content-Type"));
  if (trim(std::string_view(type).substr(0, type.find(';'))) == "application/json") return std::nullopt;
  return protocol_error(415, fmt::format("Content-Type: expected application/json, got \"{}\"", type.substr(0, 60)));
}

}  // namespace nibble::serve
