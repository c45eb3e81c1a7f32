// load_gguf: a GGUF file becomes a model that can compute. Internal to checkpoint/; load_checkpoint calls it.
//
// BF16 and F32 matrices stay views into the mapped file unless their value heads have to be put back into the order of
// checkpoints; NVFP4 becomes nibble's own NVFP4 with the factor of the tensor's ".scale" (1 where there is none) and,
// where there is an ".input_scale", inputs rounded under it. All other formats are decoded to f32, exactly, and take
// the memory of f32: they are for comparison, not for speed.
#pragma once

#include "checkpoint/load.h"

namespace nibble::checkpoint {

Result<LoadedModel> load_gguf(const Path& file, const LoadOptions& options);

}  // namespace nibble::checkpoint
