// FormatSummary: what `nibble inspect` and the server say about a model's size.
#pragma once

#include <map>
#include <string>

#include "io/safetensors.h"
#include "model/weights.h"

namespace nibble::checkpoint {

struct FormatSummary {
  std::string format;                           // of the Linears: "nvfp4" if any is, else "bf16" or "f32"
  std::map<std::string, uint64_t> dtype_bytes;  // of all tensors in the files, by the files' spelling
  uint64_t file_bytes = 0;                      // their sum
  uint64_t text_parameters = 0;                 // logical weights of the text model; a tied head counts once
  uint64_t bytes_per_token = 0;                 // model::bytes_per_token
  bool has_mtp = false, has_vision = false;
};

/// What the weights alone show; the fields about files stay empty.
FormatSummary summarize(const model::Weights& weights);
FormatSummary summarize(const model::Weights& weights, const SafetensorsFolder& files);

}  // namespace nibble::checkpoint
