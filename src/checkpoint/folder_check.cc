#include "checkpoint/folder_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "checkpoint/fused_linears.h"

namespace nibble::checkpoint {

FolderCheck::FolderCheck(const SafetensorsFolder& tensors, Layout layout) : tensors_(tensors), layout_(layout) {
  const bool packed = layout == Layout::compressed_tensors;
  for (const Entry& entry : tensors.tensors()) {
    const std::string& name = entry.info->name;
    const bool is_packed = packed && name.ends_with(kWeightPackedSuffix);
    if ((!name.ends_with(kWeightSuffix) && !is_packed) || entry.info->shape.size() < 2) continue;
    const std::string module = name.substr(0, name.rfind('.'));
    StoredModule stored{module, tensors.find(name), part(module, kWeightScaleSuffix), {}, {}, {}, {}};
    stored.tensor_scale = part(module, packed ? kWeightGlobalScaleSuffix : kWeightScale2Suffix);
    stored.input_scale = part(module, is_packed ? kInputGlobalScaleSuffix : kInputScaleSuffix);
    stored.low_rank_a = part(module, kLowRankASuffix);
    stored.low_rank_b = part(module, kLowRankBSuffix);
    modules_.push_back(std::move(stored));
  }
}

const StoredModule* FolderCheck::find(const std::string& module) const {
  const auto found =
      std::find_if(modules_.begin(), modules_.end(), [&](const StoredModule& stored) { return stored.name == module; });
  return found == modules_.end() ? nullptr : &*found;
}

const FolderCheck::Entry* FolderCheck::part(const std::string& module, std::string_view suffix) const {
  return tensors_.find(module + std::string(suffix));
}

// The number in an F32 scalar, if it is one: of shape [] in ModelOpt's layout, of shape [1] in the other.
std::optional<float> FolderCheck::scalar(const Entry* entry) const {
  const std::vector<int64_t> shape(layout_ == Layout::modelopt ? 0 : 1, 1);
  if (entry == nullptr || entry->info->dtype != "F32" || entry->info->shape != shape) return {};
  float value;
  std::memcpy(&value, entry->file->bytes(*entry->info).data(), sizeof value);
  return value;
}

void FolderCheck::check_tensors(const StoredModule& module, std::optional<bool> inputs) {
  const bool modelopt = layout_ == Layout::modelopt;
  if (module.fp8()) {
    check_channels(module);
  } else {
    check_codes(module);
    check_scalar(module, module.tensor_scale, modelopt ? kWeightScale2Suffix : kWeightGlobalScaleSuffix);
  }
  check_low_rank(module);
  const std::string_view suffix = modelopt || module.fp8() ? kInputScaleSuffix : kInputGlobalScaleSuffix;
  if (inputs.value_or(module.input_scale != nullptr)) {
    check_scalar(module, module.input_scale, suffix);
  } else if (module.input_scale != nullptr) {
    problem("{}{}: expected none, as activations are not quantized", module.name, suffix);
  }
}

void FolderCheck::check_codes(const StoredModule& module) {
  const TensorInfo& weight = *module.weight->info;
  if (weight.dtype != "U8" || weight.shape.size() != 2 || weight.shape[1] % 8 != 0) {
    return problem("{}: expected two-dimensional U8 codes, got {}", weight.name, weight.text());
  }
  check_block_scales(module);
}

void FolderCheck::check_block_scales(const StoredModule& module) {
  const TensorInfo& weight = *module.weight->info;
  const std::vector<int64_t> expected = {weight.shape[0], weight.shape[1] / 8};
  if (module.scale == nullptr) return problem("{}{}: missing", module.name, kWeightScaleSuffix);
  const TensorInfo& scales = *module.scale->info;
  if (scales.dtype != "F8_E4M3" || scales.shape != expected) {
    return problem("{}: expected [{},{}] F8_E4M3, got {}", scales.name, expected[0], expected[1], scales.text());
  }
  for (std::byte byte : module.scale->file->bytes(scales)) {
    if (byte == std::byte{0} || byte >= std::byte{0x7F}) {
      problem("{}: expected finite scales above 0, got the byte 0x{:02X}", scales.name, static_cast<int>(byte));
      break;
    }
  }
  module.scale->file->drop(scales);
}

void FolderCheck::check_scalar(const StoredModule& module, const Entry* entry, std::string_view suffix) {
  if (entry == nullptr) return problem("{}{}: missing", module.name, suffix);
  const std::optional<float> value = scalar(entry);
  if (!value) {
    return problem("{}: expected {}, got {}", entry->info->name,
                   layout_ == Layout::modelopt ? "a scalar F32" : "[1] F32", entry->info->text());
  }
  if (!std::isfinite(*value) || *value <= 0) {
    problem("{}: expected a finite number above 0, got {}", entry->info->name, *value);
  }
}

// Of FP8 weights: no NaN among the codes, one scale or one for each row.
void FolderCheck::check_channels(const StoredModule& module) {
  const TensorInfo& weight = *module.weight->info;
  if (weight.shape.size() != 2) return problem("{}: expected two dimensions, got {}", weight.name, weight.text());
  const std::span<const std::byte> codes = module.weight->file->bytes(weight);
  const bool not_a_number = std::any_of(codes.begin(), codes.end(),
                                        [](std::byte code) { return (code & std::byte{0x7F}) == std::byte{0x7F}; });
  if (not_a_number) problem("{}: expected numbers, got NaN", weight.name);
  module.weight->file->drop(weight);
  std::vector<int64_t> channels = {weight.shape[0]};
  if (layout_ == Layout::compressed_tensors) channels.push_back(1);
  const bool one_for_all = layout_ == Layout::compressed_tensors && weight.shape[0] == 1 && module.scale != nullptr &&
                           module.scale->info->shape.size() == 1;
  if (module.scale == nullptr || one_for_all || module.scale->info->shape != channels ||
      module.scale->info->dtype != "F32") {
    return check_scalar(module, module.scale, kWeightScaleSuffix);
  }
  const std::span<const std::byte> bytes = module.scale->file->bytes(*module.scale->info);
  for (size_t i = 0; i + sizeof(float) <= bytes.size(); i += sizeof(float)) {
    float value;
    std::memcpy(&value, bytes.data() + i, sizeof value);
    if (!std::isfinite(value) || value <= 0) {
      return problem("{}: expected finite numbers above 0, got {}", module.scale->info->name, value);
    }
  }
}

void FolderCheck::check_low_rank(const StoredModule& module) {
  if (module.low_rank_a == nullptr && module.low_rank_b == nullptr) return;
  const auto rank_of = [](const Entry* entry, size_t axis) {
    return entry == nullptr || entry->info->dtype != "BF16" || entry->info->shape.size() != 2
               ? -1
               : entry->info->shape[axis];
  };
  const int64_t rank = rank_of(module.low_rank_a, 0);
  const std::vector<int64_t>& codes = module.weight->info->shape;
  if (!module.four_bits() || codes.size() != 2 || rank <= 0 || rank_of(module.low_rank_b, 1) != rank ||
      rank_of(module.low_rank_a, 1) != codes[1] * 2 || rank_of(module.low_rank_b, 0) != codes[0]) {
    problem("{}: expected BF16 factors [r,K] and [N,r] beside NVFP4 codes of N rows and K columns, got others",
            module.name);
  }
}

void FolderCheck::check_fused() {
  std::map<std::string, const StoredModule*> first;
  for (const StoredModule& module : modules_) {
    const auto [it, inserted] = first.emplace(fused_module(module.name), &module);
    const StoredModule& other = *it->second;
    if (inserted) continue;
    if (module.four_bits() != other.four_bits() || module.fp8() != other.fp8()) {
      problem("{}: expected the format of {}, with which servers fuse it", module.name, other.name);
    } else if ((module.four_bits() && scalar(module.tensor_scale) != scalar(other.tensor_scale)) ||
               scalar(module.input_scale) != scalar(other.input_scale)) {
      problem("{}: expected the tensor and input scale of {}, with which servers fuse it", module.name, other.name);
    }
  }
}

void FolderCheck::check_against(const SafetensorsFolder& source) {
  for (const Entry& entry : source.tensors()) {
    const std::string& name = entry.info->name;
    const Entry* here = tensors_.find(name);
    if (here == nullptr && layout_ == Layout::compressed_tensors && name.ends_with(kWeightSuffix)) {
      here = part(name.substr(0, name.size() - kWeightSuffix.size()), kWeightPackedSuffix);
    }
    if (here == nullptr) {
      problem("{}: expected every tensor of the source, got none of that name", name);
    } else if (here->info->dtype != "U8" && here->info->dtype != "F8_E4M3" &&
               here->info->text() != entry.info->text()) {
      problem("{}: expected {} as in the source, got {}", name, entry.info->text(), here->info->text());
    }
  }
}

void FolderCheck::check_head(const model::Config& config) {
  const StoredModule* head = find("lm_head");
  if (config.tie_embeddings == false && head == nullptr) {
    problem("lm_head.weight: expected in an untied model, got none");
  }
  if (config.tie_embeddings == true && head != nullptr && head->quantized()) {
    problem("lm_head: quantized, but tie_word_embeddings says that it is the embedding");
  }
}

}  // namespace nibble::checkpoint
