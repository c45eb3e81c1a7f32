// Generation: how a checkpoint wants to be sampled and where its replies end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "model/config.h"

namespace nibble::checkpoint {

/// Values as generation_config.json gives them; absent ones are the caller's choice.
struct Generation {
  std::optional<bool> do_sample;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;

  /// A reply ends at any of these. The union of the eos ids of config.json (root and text_config) and of
  /// generation_config.json, the id of the tokenizer's eos_token, and for the released vocabulary always <|endoftext|>
  /// and <|im_end|>: derived checkpoints that name only one of the two never stop.
  std::vector<int32_t> stop_ids;
};

/// Reads generation_config.json, tokenizer_config.json and the added tokens of tokenizer.json, as far as they exist.
Result<Generation> read_generation(const Path& folder, const model::Config& config);

}  // namespace nibble::checkpoint
