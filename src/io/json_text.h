// JSON values as text, for comparing and for showing them.
#pragma once

#include <string>

#include "io/json.h"

namespace nibble {

/// One text for all equal values: compact, keys in order of their bytes, whole numbers as integers (1.0 is 1).
std::string canonical_json(const Json& value);

/// Compact JSON; what is not UTF-8 becomes U+FFFD.
std::string compact_json(const Json& value);

/// A value for a message: compact, and cut at the border of a character where it has more than 80 bytes.
std::string brief_json(const Json& value);

}  // namespace nibble
