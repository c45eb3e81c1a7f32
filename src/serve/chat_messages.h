// The `messages` and `tools` of a chat request: their form checked, content brought to one string per message. What
// templates cannot render is brought into shape later, by text/.
#pragma once

#include <optional>

#include "io/json.h"
#include "serve/errors.h"

namespace nibble::serve {

/// Reads 1..2048 messages into a list of objects with `role`, `content` (a string, empty for null) and, where given,
/// `tool_calls`, `tool_call_id`, `name`, `reasoning_content`.
std::optional<ApiError> read_messages(const Json& messages, Json& out);

/// Reads at most 128 tools, together at most 256 KiB, into a list of {"type","function"}.
std::optional<ApiError> read_tools(const Json& tools, Json& out);

}  // namespace nibble::serve
