// unpack_gguf: a GGUF file becomes a checkpoint folder as transformers reads it.
#pragma once

#include "checkpoint/load.h"

namespace nibble::checkpoint {

struct GgufUnpack {
  uint64_t tensors = 0, bytes = 0;
  uint64_t decoded = 0;  // matrices of block formats, which were rounded to BF16
  uint64_t kept = 0;     // vectors whose original bytes the file carried
};

/// Writes safetensors, config.json, tokenizer.json, tokenizer_config.json, generation_config.json and, if the file has
/// one, chat_template.jinja into `folder`, which exists. BF16, F16 and F32 matrices keep their bytes, so a file that
/// export_gguf made in BF16 from a BF16 checkpoint gives back every tensor of it, draft head included. Vectors come
/// back as their originals (gguf_originals.h) or, where there are none, in the dtype in which Qwen3.5 is released:
/// norms within 2^-24, A_log within 2 ulp of the larger of 1 and its magnitude.
/// `unsupported` for NVFP4 matrices: their folder is the one that the file was made from.
/// options: pool, progress and cancel.
Result<GgufUnpack> unpack_gguf(const Path& file, const Path& folder, const LoadOptions& options = {});

}  // namespace nibble::checkpoint
