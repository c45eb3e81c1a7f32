#pragma once

#include <string>
#include <string_view>

namespace nibble::serve {

/// %XX becomes its byte; a '%' without two hex digits stays as it is.
std::string percent_decode(std::string_view text);

}  // namespace nibble::serve
