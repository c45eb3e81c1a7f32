// The modules of a folder that hold a matrix, and what the config says of each.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "checkpoint/doctor/folder.h"

namespace nibble::checkpoint::doctor {

struct Module {
  std::string name;
  const FolderTensor* weight = nullptr;  // ".weight" or ".weight_packed"
  Format stored = Format::unchanged;     // nvfp4 or fp8, by the tensors alone

  bool quantized() const { return stored != Format::unchanged; }
};

/// Linears alone: embeddings and convolutions are none, unless they are quantized.
std::vector<Module> linears(const Folder& folder);

/// Where the config files name modules: the key "ignore" or "exclude_modules", and the section that holds it.
struct NameLists {
  Json* config = nullptr;  // quantization_config of config.json
  Json* hf = nullptr;      // "quantization" of hf_quant_config.json
};
NameLists edit_name_lists(Folder& folder);
inline constexpr const char* kIgnore = "ignore";
inline constexpr const char* kExclude = "exclude_modules";

/// quantization_config of config.json, at its root or in text_config; nullptr where there is none.
const Json* quantization_section(const Folder& folder);
/// "quantization" of hf_quant_config.json.
const Json* hf_section(const Folder& folder);

/// Whether one entry of the layout's list of dense modules means this module.
bool entry_matches(Layout layout, const std::string& entry, const std::string& module);

/// "a", "a and 3 others"
std::string some_of(const std::vector<std::string>& names);

}  // namespace nibble::checkpoint::doctor
