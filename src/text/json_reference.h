// References within a JSON schema.
#pragma once

#include <string_view>

#include "io/json.h"

namespace nibble::text {

/// The target of a reference within a document, "#/$defs/city" (JSON pointer, RFC 6901); null if it is elsewhere or
/// does not exist.
const Json* resolve_reference(std::string_view reference, const Json& root);

}  // namespace nibble::text
