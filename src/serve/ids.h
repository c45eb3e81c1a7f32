// Random identifiers: "chatcmpl-…", "call_…", "req-…".
#pragma once

#include <string>
#include <string_view>

namespace nibble::serve {

/// `prefix` and 24 letters or digits from the system's random source.
std::string make_id(std::string_view prefix);

/// Whether a client's X-Request-Id may be echoed: 1..128 visible ASCII characters.
bool is_request_id(std::string_view id);

}  // namespace nibble::serve
