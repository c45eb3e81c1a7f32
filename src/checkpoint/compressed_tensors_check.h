// Does a compressed-tensors folder agree with itself? Run on every export in that layout before it gets its name.
// Loaders of this layout do not notice most of these faults and compute with random numbers.
#pragma once

#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "io/safetensors.h"

namespace nibble::checkpoint {

/// Everything wrong with the folder, as modelopt_problems() does for the other layout: every quantized linear is
/// claimed by one group and has its tensors with their shapes ([1] for scalars), an input scale exactly where the group
/// rounds inputs; every dense one is in `ignore`; scales are finite and > 0; fused linears agree; the head is as the
/// config says; with `source`, every tensor of it is there.
std::vector<Status> compressed_tensors_problems(const Path& folder, const SafetensorsFolder* source = nullptr);

}  // namespace nibble::checkpoint
