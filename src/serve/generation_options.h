// The request fields that say how to generate, common to chat and plain completions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "serve/field_reader.h"

namespace nibble::serve {

struct GenerationOptions {
  std::string model;  // empty: the one that is served
  bool stream = false, include_usage = false;

  std::optional<float> temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
  std::optional<int> top_k;
  std::optional<int64_t> seed;

  std::optional<int64_t> max_tokens;  // the smaller of max_tokens and max_completion_tokens
  int64_t min_tokens = 0;
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;

  std::vector<std::string> stop;  // at most 16 of 1..256 bytes
  bool include_stop_str_in_output = false;
};

/// Reads those fields and refuses the ones that this server does not do yet (n > 1, logprobs, logit_bias, …).
GenerationOptions read_generation_options(FieldReader& fields);

/// Lets the request's values stand before the model's own defaults.
engine::Sampling sampling_of(const GenerationOptions& options, const engine::Sampling& defaults);

/// How many tokens to generate: what the request asks, else `fallback` where it is not 0, else all that is left; never
/// more than is left of the context.
int64_t token_budget(const GenerationOptions& options, int64_t fallback, int64_t prompt_tokens, int64_t context);

}  // namespace nibble::serve
