// The function definitions of BFCL as OpenAI tools.
#pragma once

#include <string>

#include "base/result.h"
#include "io/json.h"

namespace nibble::gate {

/// [{"name", "description", "parameters"}] as [{"type": "function", "function": …}]. A dot in a name becomes _, so that
/// it fits ^[a-zA-Z0-9_-]{1,64}$. The words for types become those of JSON Schema wherever a schema stands: dict,
/// HashMap object; float, double number; tuple, list, ArrayList array; any, char string; long, byte integer; others are
/// left out. With a `language` ("Java") every parameter is a string of its source text, and its description says of
/// which type. `corrupt`, beginning with `where`, for what has another form.
Result<Json> openai_tools(const Json& functions, const std::string& language, const std::string& where);

}  // namespace nibble::gate
