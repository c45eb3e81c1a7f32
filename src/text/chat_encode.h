// From rendered text to ids, with control tokens only where they may stand.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::text {

/// Appends the ids of a rendered conversation. Text that reads like an added token becomes one where the template wrote
/// it, or in the content and reasoning of an assistant message; typed by a user, a system prompt or a tool, in a tool's
/// definition or in the arguments of a call it stays text,
/// unless `allow_control_text` (what transformers does). Text without such intruders gets exactly the ids that the
/// tokenizer gives to the whole.
Status encode_rendered(const Tokenizer& tokenizer, const Rendered& rendered, bool allow_control_text,
                       std::vector<int32_t>& out);

/// The same with forced borders: no token reaches across a cut, so that what stands before a cut is encoded as if
/// nothing followed it. `cuts` are bytes of the text, ascending. Appends to `tokens_before`, for every cut, how many
/// ids of this call stand before it.
Status encode_rendered(const Tokenizer& tokenizer, const Rendered& rendered, bool allow_control_text,
                       std::span<const size_t> cuts, std::vector<int32_t>& out, std::vector<size_t>& tokens_before);

}  // namespace nibble::text
