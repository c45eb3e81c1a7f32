// Chat JSONL: one conversation a line, `{"messages": [...], "tools": [...]?}` in OpenAI's form. Read by calibration,
// evaluation and training alike.
#pragma once

#include <cstdint>
#include <vector>

#include "base/file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::text {

/// The ids of every conversation, rendered whole and without a generation prompt, as a model reads it when trained.
/// `limit` > 0 stops after that many conversations; ones longer than `max_tokens` (> 0) are cut there. An empty file
/// is `invalid_argument`; a bad line is named.
Result<std::vector<std::vector<int32_t>>> tokenize_chats(const Path& file, const ChatTemplate& chat_template,
                                                         const Tokenizer& tokenizer, int64_t limit = 0,
                                                         int64_t max_tokens = 0);

}  // namespace nibble::text
