// For tests: an adapter held in memory, to be changed in one place and written as PEFT would.
#pragma once

#include "checkpoint/test_folder.h"

namespace nibble::checkpoint::testing {

struct TestAdapter {
  std::map<std::string, Blob> tensors;
  Json config;

  /// Random A and B of rank 4 for these modules, which are also its target_modules. F32.
  static TestAdapter of(const TestCheckpoint& base, const std::vector<std::string>& modules);
  /// One matrix of random F32, BF16 or F16 values.
  static Blob random(std::vector<int64_t> shape, uint64_t seed, const std::string& dtype = "F32");
  static std::string name(const std::string& module, char side) {
    return "base_model.model." + module + ".lora_" + side + ".weight";
  }

  void write(const Path& folder) const;
};

}  // namespace nibble::checkpoint::testing
