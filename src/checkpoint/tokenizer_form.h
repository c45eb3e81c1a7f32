// The form of a Qwen3.5 tokenizer.json: byte-level BPE behind a split by a pattern.
#pragma once

#include <string_view>

#include "io/json.h"

namespace nibble::checkpoint {

/// With the added tokens; model.vocab and model.merges are null, and the caller's to give.
Json byte_level_bpe_json(bool nfc, std::string_view pattern, Json added_tokens);

}  // namespace nibble::checkpoint
