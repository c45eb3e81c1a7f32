// The tokenizer and chat template of a synthetic model: one token per byte, and the added tokens of the released
// vocabulary at their ids, so that prompts, stop tokens and the tools around a model work as with a real one.
#pragma once

#include "base/file.h"
#include "io/json.h"

namespace nibble::checkpoint {

inline constexpr int32_t kSyntheticEndOfText = 248044, kSyntheticImEnd = 248046;
inline constexpr int64_t kSyntheticIdLimit = 248077;  // one more than the largest id

/// tokenizer.json: byte-level BPE without merges.
Json synthetic_tokenizer_json();

/// Writes tokenizer.json, tokenizer_config.json and chat_template.jinja into the folder.
Status write_synthetic_tokenizer(const Path& folder, int64_t max_positions);

}  // namespace nibble::checkpoint
