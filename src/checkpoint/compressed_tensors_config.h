// The quantization_config of vllm-project/compressed-tensors: groups of modules by class, name or regular expression,
// and what is done to each.
//
// That library takes much on trust: with a key left out it may run and compute something else. What would go wrong
// there is an error here, so that a folder which nibble reads is one that it reads the same way. One key is forgiven,
// as published folders lack it: scale_dtype of inputs.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/module_pattern.h"
#include "checkpoint/stored_format.h"
#include "io/json.h"

namespace nibble::checkpoint {

/// One entry of `targets` or `ignore`: "Linear" is every linear, "re:…" a pattern matched from the start of a module's
/// name, and anything else a name in full. There are no wildcards.
class ModuleTarget {
 public:
  enum class Kind : uint8_t { name, pattern, linears };  // the more exact comes first

  static Result<ModuleTarget> read(const Json& item, const char* key, const char* where);
  Kind kind() const { return kind_; }
  Result<bool> matches(std::string_view module) const;

 private:
  Kind kind_ = Kind::name;
  std::string name_;
  std::optional<ModulePattern> pattern_;
};

struct CompressedTensorsConfig {
  struct Group {
    StoredFormat format;
    std::vector<ModuleTarget> targets;
  };
  std::string format;  // of the whole: nvfp4-pack-quantized, float-quantized or mixed-precision
  std::string version;
  std::vector<Group> groups;
  std::vector<ModuleTarget> ignore;

  /// Of a linear, by its name in the files. `ignore` goes first; else the most exact target decides, and among equals
  /// the first.
  Result<StoredFormat> format_of(std::string_view module) const;
};

/// Reads the section. `unsupported` for formats that nibble does not compute, `corrupt` for what is missing, has a
/// wrong type or contradicts itself.
Result<CompressedTensorsConfig> read_compressed_tensors(const Json& section, const char* where);

}  // namespace nibble::checkpoint
