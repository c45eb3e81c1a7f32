// write_adapter: a LoRA adapter as a folder that PEFT, Unsloth and nibble load. Layout: adapter.h.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace nibble::checkpoint {

struct AdapterSettings {
  int64_t rank = 0;
  double alpha = 0;                         // scale = alpha / rank
  std::string base_model;                   // a folder or a name on the hub
  std::vector<std::string> target_modules;  // "q_proj", …: every module of the base that they name has tensors
};

struct AdapterTensors {
  std::string module;  // as the base folder names it
  Tensor a, b;         // f32 [r,in] and [out,r]
};

/// The folder must be new or empty; it appears complete or not at all. Tensors are F32, in the order given.
Status write_adapter(const Path& folder, const AdapterSettings& settings, std::span<const AdapterTensors> tensors);

}  // namespace nibble::checkpoint
