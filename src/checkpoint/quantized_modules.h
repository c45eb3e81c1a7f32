// Which modules of a checkpoint are quantized and how: the one struct that the config files of both layouts come from.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/module_format.h"

namespace nibble::checkpoint {

struct QuantizedModule {
  std::string name;  // in full, as in the files
  Format format = Format::nvfp4;
  Inputs inputs = Inputs::a16;
  bool low_rank = false;
};

struct QuantizedModules {
  std::vector<QuantizedModule> quantized;  // in the order of the files
  /// Full names of everything else that has a matrix or a kernel: linears, convolutions, embeddings.
  std::vector<std::string> unquantized;
  bool fp8_kv = false;

  /// All quantized modules have one form.
  bool uniform() const;
};

/// The modules of one form, names sorted.
struct FormGroup {
  Format format = Format::nvfp4;
  Inputs inputs = Inputs::a16;
  bool low_rank = false;
  std::vector<std::string> modules;
};
/// One for each form there is: FP8 before NVFP4, as in the goldens.
std::vector<FormGroup> form_groups(const QuantizedModules& modules);

/// The unquantized modules in few words: for each the shortest of its prefixes at a dot that, followed by '*', matches
/// no quantized module ("model.layers.3.mlp*", or "model.layers.1" with "model.layers.1.*"), or the name itself.
/// Sorted. The rule is that of nvidia-modelopt's exporter.
std::vector<std::string> excluded_patterns(const QuantizedModules& modules);

}  // namespace nibble::checkpoint
