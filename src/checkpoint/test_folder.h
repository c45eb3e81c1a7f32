// For tests: a small checkpoint held in memory, to be changed in one place and written as a folder.
#pragma once

#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/load.h"
#include "io/json.h"
#include "io/safetensors.h"

namespace nibble::checkpoint::testing {

struct Blob {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

/// The parts of a checkpoint folder. Keys of `files` beside the tensors: "config.json", "generation_config.json", ….
struct TestCheckpoint {
  std::map<std::string, Blob> tensors;
  Json config;
  std::map<std::string, std::string> files;

  /// The micro model of tests/golden.
  static TestCheckpoint micro(const std::string& variant = "micro");
  /// The same with all Linears but in_proj_a/b and lm_head in NVFP4, and its quantization_config.
  static TestCheckpoint micro_nvfp4(const std::string& algo = "W4A16_NVFP4");

  /// Replaces what `folder` holds. Safetensors files are assembled by hand, so broken contents can be written. With
  /// more than one shard the tensors are dealt out in turn, and there is an index.
  void write(const Path& folder, size_t shards = 1) const;
};

/// The logits of 40 ids of the micro vocabulary, in exact numerics.
std::vector<float> logits(const LoadedModel& model);

Json read_json_file(const Path& path);
void write_plain(const Path& path, std::string_view bytes);

}  // namespace nibble::checkpoint::testing
