// What the released models of the family have: the values that repairs write where a folder lost its own.
#pragma once

#include <cstdint>
#include <optional>

#include "checkpoint/doctor/folder.h"
#include "io/json.h"

namespace nibble::checkpoint::doctor {

struct SpecialToken {
  const char* key;      // of config.json
  const char* content;  // of the tokenizer
  int64_t id;           // in the released vocabulary of 248,320
};
inline constexpr SpecialToken kVisionTokens[] = {{"image_token_id", "<|image_pad|>", 248056},
                                                 {"video_token_id", "<|video_pad|>", 248057},
                                                 {"vision_start_token_id", "<|vision_start|>", 248053},
                                                 {"vision_end_token_id", "<|vision_end|>", 248054}};
inline constexpr SpecialToken kStopTokens[] = {{"eos_token_id", "<|im_end|>", 248046},
                                               {"eos_token_id", "<|endoftext|>", 248044}};
inline constexpr int64_t kReleasedVocab = 248320;

/// The id of the token in this folder's tokenizer, else the released one if the vocabulary is that.
std::optional<int64_t> known_token_id(const Folder& folder, const SpecialToken& token);
/// The same, and the released id for other vocabularies, too, where no text has that token.
int64_t token_id(const Folder& folder, const SpecialToken& token);

/// rope_parameters: base 1e7, a quarter of each head, three interleaved sections that fill it: [11, 11, 10] for the
/// released head_dim of 256.
Json released_rope(int64_t head_dim = 256);
/// The vision tower that writes vectors of this width; for other widths the smallest one, with that output.
Json released_vision_config(int64_t hidden);
Json released_preprocessor();
Json released_video_preprocessor();

/// The pattern of the family's pre-tokenizer, and that of Qwen2 to 3, which lacks combining marks.
extern const char* const kFamilyPattern;
extern const char* const kQwen2Pattern;

}  // namespace nibble::checkpoint::doctor
