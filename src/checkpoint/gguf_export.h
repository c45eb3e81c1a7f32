// export_gguf: a checkpoint folder becomes a GGUF file, streamed: memory use does not depend on the model's size.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/load.h"

namespace nibble::checkpoint {

/// What matrices become. Vectors and conv1d are always F32.
enum class GgufMatrices : uint8_t {
  bf16,   // every matrix; what is not BF16 is rounded to it
  q8_0,   // every matrix whose rows are a multiple of 32; others as in bf16
  nvfp4,  // NVFP4 modules as they are, code for code and scale for scale; others as in bf16
};

std::optional<GgufMatrices> gguf_matrices_named(std::string_view name);

struct GgufExportOptions {
  std::optional<GgufMatrices> matrices;  // absent: nvfp4 where the checkpoint has NVFP4 modules, else bf16
  std::string name;                      // general.name; empty: none
  ThreadPool* pool = nullptr;
  Progress progress;  // in bytes of the file
  CancelToken cancel;
};

struct GgufExport {
  GgufMatrices matrices = GgufMatrices::bf16;
  uint64_t bytes = 0;                              // of tensors
  std::vector<std::pair<std::string, int>> types;  // how many tensors have each
  /// What the file does not hold or holds less exactly than the folder, a sentence each.
  std::vector<std::string> notes;
};

/// The file appears when it is complete. `unsupported` for what llama.cpp's metadata cannot say (gguf_config.h), for
/// tokenizers it has no name for (gguf_text.h), for low-rank branches; `invalid_argument` for nvfp4 of a checkpoint
/// without NVFP4 modules. The vision tower stays behind, which is a note.
Result<GgufExport> export_gguf(const Path& folder, const Path& file, const GgufExportOptions& options = {});

}  // namespace nibble::checkpoint
