#include "checkpoint/quantized_modules.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <tuple>

namespace nibble::checkpoint {

bool QuantizedModules::uniform() const {
  return std::all_of(quantized.begin(), quantized.end(), [&](const QuantizedModule& module) {
    const QuantizedModule& first = quantized.front();
    return module.format == first.format && module.inputs == first.inputs && module.low_rank == first.low_rank;
  });
}

std::vector<FormGroup> form_groups(const QuantizedModules& modules) {
  std::map<std::tuple<bool, Format, Inputs, bool>, std::vector<std::string>> groups;
  for (const QuantizedModule& module : modules.quantized) {
    const bool four_bits = module.format == Format::nvfp4;
    groups[{four_bits, module.format, module.inputs, module.low_rank}].push_back(module.name);
  }
  std::vector<FormGroup> sorted;
  for (auto& [form, names] : groups) {
    std::sort(names.begin(), names.end());
    sorted.push_back({std::get<1>(form), std::get<2>(form), std::get<3>(form), std::move(names)});
  }
  return sorted;
}

std::vector<std::string> excluded_patterns(const QuantizedModules& modules) {
  std::set<std::string, std::less<>> quantized;
  for (const QuantizedModule& module : modules.quantized) quantized.insert(module.name);
  const auto any_begins_with = [&](std::string_view prefix) {
    const auto first = quantized.lower_bound(prefix);
    return first != quantized.end() && first->starts_with(prefix);
  };
  std::set<std::string> patterns;
  for (const std::string& name : modules.unquantized) {
    bool found = false;
    for (size_t dot = name.find('.'); dot != std::string::npos && !found; dot = name.find('.', dot + 1)) {
      const std::string prefix = name.substr(0, dot);
      found = true;
      if (!any_begins_with(prefix)) {
        patterns.insert(prefix + "*");
      } else if (!quantized.contains(prefix) && !any_begins_with(prefix + ".")) {
        patterns.insert(prefix);  // "model.layers.1*" would match layer 10, too
        patterns.insert(prefix + ".*");
      } else {
        found = false;
      }
    }
    if (!found) patterns.insert(name);
  }
  return {patterns.begin(), patterns.end()};
}

}  // namespace nibble::checkpoint
