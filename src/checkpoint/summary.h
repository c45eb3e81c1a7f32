// FormatSummary: what `nibble inspect` and the server say about a model's size.
#pragma once

#include <map>
#include <string>

#include "io/safetensors.h"
#include "model/weights.h"

namespace nibble::checkpoint {

struct FormatSummary {
  std::string format;  // of the quantized Linears: "nvfp4", "fp8" or "mixed"; without any "bf16" or "f32"
  std::map<std::string, int64_t> linears;       // how many have each format
  double effective_bits = 0;                    // bits read per weight of the quantized Linears, scales included
  std::string activations;                      // activations_of
  std::map<std::string, uint64_t> dtype_bytes;  // of all tensors in the files, by the files' spelling
  uint64_t file_bytes = 0;                      // their sum
  uint64_t text_parameters = 0;                 // logical weights of the text model; a tied head counts once
  uint64_t bytes_per_token = 0;                 // model::bytes_per_token
  bool has_mtp = false, has_vision = false;

  /// "nvfp4", "mixed (64 nvfp4, 40 fp8, 5.61 bits)", "bf16"; and ", activations a4" where inputs are rounded.
  std::string text() const;
};

/// What the weights alone show; the fields about files stay empty.
FormatSummary summarize(const model::Weights& weights);
FormatSummary summarize(const model::Weights& weights, const SafetensorsFolder& files);

}  // namespace nibble::checkpoint
