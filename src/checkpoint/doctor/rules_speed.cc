// The rule of layers that are wider than the rest: they load and are right, and decoding waits for their bytes.
#include <map>

#include "checkpoint/doctor/modules.h"
#include "checkpoint/doctor/rules_quantization.h"
#include "checkpoint/linear_layout.h"
#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint::doctor {
namespace {

constexpr double kWorthNaming = 0.1;  // of the bytes that a token reads

uint64_t stored_bytes(const Folder& folder, std::string_view tensor) {
  const FolderTensor* found = folder.tensor(tensor);
  return found == nullptr ? 0 : found->stored->info->bytes;
}

// What a step reads of a module: its codes and their scales.
uint64_t bytes_of(const Folder& folder, const Module& module) {
  uint64_t bytes = module.weight->stored->info->bytes;
  for (const std::string_view suffix :
       {kWeightScaleSuffix, kWeightScale2Suffix, kWeightGlobalScaleSuffix, kLowRankASuffix, kLowRankBSuffix}) {
    bytes += stored_bytes(folder, fmt::format("{}{}", module.name, suffix));
  }
  return bytes;
}

// Codes of four bits and a byte for each block of them.
uint64_t nvfp4_bytes(const FolderTensor& weight) {
  uint64_t elements = 1;
  for (const int64_t extent : weight.shape) elements *= static_cast<uint64_t>(extent);
  return elements / 2 + elements / kNvfp4Block;
}

// Linears of all layers that have one name and one format.
struct Wide {
  size_t linears = 0;
  uint64_t bytes = 0, in_four_bits = 0;
};
using WideByName = std::map<std::pair<std::string, std::string>, Wide>;  // last part of the name, dtype

void add(WideByName& wide, const std::string& name, const FolderTensor& weight, uint64_t bytes) {
  Wide& one = wide[{name, weight.dtype()}];
  ++one.linears;
  one.bytes += bytes;
  one.in_four_bits += nvfp4_bytes(weight);
}

double gigabytes(uint64_t bytes) {
  return static_cast<double>(bytes) * 1e-9;
}

}  // namespace

Findings SlowFormats::check(const Folder& folder, Asked) {
  WideByName wide;
  uint64_t total = 0;
  bool four_bits = false;
  for (const Module& module : linears(folder)) {
    if (model::part_of(module.name + ".") != model::Part::text || module.name.ends_with("embed_tokens")) continue;
    const uint64_t bytes = bytes_of(folder, module);
    total += bytes;
    four_bits = four_bits || module.stored == Format::nvfp4;
    if (module.stored == Format::nvfp4) continue;
    add(wide, module.name.substr(module.name.rfind('.') + 1), *module.weight, bytes);
  }
  const FolderTensor* embedding = folder.tensor(fmt::format("{}embed_tokens.weight", folder.prefix()));
  const bool tied = folder.tensor("lm_head.weight") == nullptr && folder.tensor("lm_head.weight_packed") == nullptr;
  if (tied && embedding != nullptr) {  // read as a head it is read whole
    total += embedding->stored->info->bytes;
    add(wide, "lm_head", *embedding, embedding->stored->info->bytes);
  }
  Findings out;
  if (!four_bits) return out;
  for (const auto& [key, one] : wide) {
    const auto& [name, dtype] = key;
    const double share = static_cast<double>(one.bytes) / static_cast<double>(total);
    if (share < kWorthNaming || one.bytes <= one.in_four_bits) continue;
    const double saved = static_cast<double>(one.bytes - one.in_four_bits) / static_cast<double>(total);
    const bool head = name == "lm_head";
    out.push_back(
        {{"weights", head && tied ? "lm_head, tied to the embedding" : name,
          fmt::format("{}, {:.3g} of the {:.3g} GB that a token reads", dtype, gigabytes(one.bytes), gigabytes(total))},
         fmt::format(
             "{:.0f} % of what decoding reads lies in {} linear{} of a wider format; in NVFP4 a token would read "
             "{:.0f} % less, and memory sets the pace",
             share * 100, one.linears, one.linears == 1 ? "" : "s", saved * 100),
         head ? fmt::format("quantize the BF16 model with --recipe best_head{}, and compare by `nibble eval`",
                            tied ? " --untie" : "")
              : "if speed counts, quantize the BF16 model with a recipe that has them in NVFP4, and compare by "
                "`nibble eval`"});
  }
  return out;
}

}  // namespace nibble::checkpoint::doctor
