// The rule of fused linears with unequal scales, whose repair encodes weights anew.
#include <cmath>
#include <cstring>
#include <map>

#include "checkpoint/doctor/modules.h"
#include "checkpoint/doctor/rules_quantization.h"
#include "checkpoint/fused_linears.h"
#include "checkpoint/linear_layout.h"
#include "ops/quant/nvfp4.h"

namespace nibble::checkpoint::doctor {
namespace {

// A tensor scale and an input scale, as the files hold them.
struct Scales {
  std::optional<float> tensor, input;
  bool operator==(const Scales&) const = default;
};

class FusedGroups {
 public:
  explicit FusedGroups(const Folder& folder) : folder_(folder) {
    const Result<Quantization> quantization = folder.quantization();
    if (!quantization.ok()) return;
    packed_ = quantization->layout == Layout::compressed_tensors;
    for (Module& module : linears(folder)) {
      if (module.stored == Format::nvfp4) groups_[fused_module(module.name)].push_back(std::move(module));
    }
    std::erase_if(groups_, [&](const auto& group) { return !differs(group.second); });
  }

  const std::map<std::string, std::vector<Module>>& unequal() const { return groups_; }
  std::string tensor_scale_name(const Module& module) const {
    return module.name + std::string(packed_ ? kWeightGlobalScaleSuffix : kWeightScale2Suffix);
  }
  std::string input_scale_name(const Module& module) const {
    return module.name + std::string(packed_ ? kInputGlobalScaleSuffix : kInputScaleSuffix);
  }
  Scales of(const Module& module) const {
    return {stored(tensor_scale_name(module)), stored(input_scale_name(module))};
  }
  /// What the stored number multiplies by.
  float factor(float stored) const { return packed_ ? div_rn(1, stored) : stored; }
  /// The one that stands for the larger factor.
  std::optional<float> larger(std::optional<float> a, std::optional<float> b) const {
    if (!a || !b) return a ? a : b;
    return packed_ ? std::min(*a, *b) : std::max(*a, *b);
  }

 private:
  std::optional<float> stored(const std::string& name) const {
    const std::optional<float> value = folder_.scalar(folder_.tensor(name));
    const bool sound =
        value && *value > 0 && std::isfinite(*value) && std::isfinite(factor(*value)) && factor(*value) > 0;
    return sound ? value : std::nullopt;
  }
  bool differs(const std::vector<Module>& modules) const {
    for (const Module& module : modules) {
      if (!(of(module) == of(modules.front()))) return true;
    }
    return false;
  }

  const Folder& folder_;
  bool packed_ = false;
  std::map<std::string, std::vector<Module>> groups_;
};

void set_scalar(FolderTensor& tensor, float value) {
  tensor.bytes = [value] {
    return Result<std::string>(std::string(reinterpret_cast<const char*>(&value), sizeof value));
  };
}

FolderTensor* find(Folder& folder, const std::string& name) {
  for (FolderTensor& tensor : folder.edit_tensors()) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

struct Encoded {
  std::string codes, scales;
};

// The weights that the codes mean, under another tensor scale, with the block scales of least error. The old scale
// bytes are among those tried, so no block comes out worse than if the server had only replaced the tensor scale.
Result<Encoded> encode_anew(const SafetensorsFolder::Entry& codes, const SafetensorsFolder::Entry& scales, float from,
                            float to) {
  NIBBLE_TRY(code_tensor, codes.file->tensor(*codes.info));
  NIBBLE_TRY(scale_tensor, scales.file->tensor(*scales.info));
  const bool shaped = code_tensor.dtype() == DType::u8 && code_tensor.shape().rank() == 2 &&
                      code_tensor.dim(1) % 8 == 0 && scale_tensor.dtype() == DType::f8e4m3 &&
                      scale_tensor.shape() == Shape{code_tensor.dim(0), code_tensor.dim(1) / 8};
  if (!shaped) return corrupt("{}: expected NVFP4 codes and their scales, got other shapes", codes.info->name);
  const Shape shape{code_tensor.dim(0), code_tensor.dim(1) * 2};
  ThreadPool pool(1);
  Context cx(pool);
  const OwnedTensor values(DType::f32, shape), new_codes(DType::u8, code_tensor.shape()),
      new_scales(DType::f8e4m3, scale_tensor.shape());
  ops::nvfp4_dequantize(cx, code_tensor, scale_tensor, from, values.view);
  const Nvfp4TensorScale scale{to, false};
  ops::nvfp4_scales_mse(cx, values.view, scale, new_scales.view);
  ops::nvfp4_encode(cx, values.view, scale, new_scales.view, new_codes.view);
  const auto text = [](const Tensor& t) { return std::string(static_cast<const char*>(t.raw()), t.bytes()); };
  return Encoded{text(new_codes.view), text(new_scales.view)};
}

}  // namespace

Findings FusedScales::check(const Folder& folder, Asked) {
  const FusedGroups groups(folder);
  if (groups.unequal().empty()) return {};
  std::vector<std::string> names;
  float worst = 1;
  for (const auto& [name, modules] : groups.unequal()) {
    names.push_back(name);
    for (const Module& a : modules) {
      for (const Module& b : modules) {
        const Scales x = groups.of(a), y = groups.of(b);
        if (x.tensor && y.tensor) worst = std::max(worst, groups.factor(*x.tensor) / groups.factor(*y.tensor));
      }
    }
  }
  return {{{"weights", "scales of fused linears", some_of(names)},
           fmt::format("servers give the fused matrix the largest scale and leave the codes as they are: weights come "
                       "out up to {:.3g} times too large",
                       worst),
           "encode the weights under one scale, which rounds them once more; better: quantize the BF16 model again"}};
}

Status FusedScales::fix(Folder& folder, Asked) {
  const FusedGroups groups(folder);
  struct Change {
    std::string codes, scales, tensor_scale, input_scale;
    Scales from, to;
  };
  std::vector<Change> changes;
  for (const auto& [name, modules] : groups.unequal()) {
    Scales to;
    for (const Module& module : modules) {
      const Scales scales = groups.of(module);
      if (!scales.tensor) return corrupt("{}: expected a positive number, got none", groups.tensor_scale_name(module));
      to.tensor = groups.larger(to.tensor, scales.tensor);
      to.input = groups.larger(to.input, scales.input);
    }
    for (const Module& module : modules) {
      changes.push_back({module.weight->name, module.name + std::string(kWeightScaleSuffix),
                         groups.tensor_scale_name(module), groups.input_scale_name(module), groups.of(module), to});
    }
  }
  for (const Change& change : changes) {
    if (change.from.input && change.from.input != change.to.input) {
      set_scalar(*find(folder, change.input_scale), *change.to.input);
    }
    if (change.from.tensor == change.to.tensor) continue;
    FolderTensor *codes = find(folder, change.codes), *scales = find(folder, change.scales);
    if (scales == nullptr) return corrupt("{}: expected beside the codes, got none", change.scales);
    const float from = groups.factor(*change.from.tensor), to = groups.factor(*change.to.tensor);
    const auto encoded = [code_entry = codes->stored, scale_entry = scales->stored, from, to] {
      return encode_anew(*code_entry, *scale_entry, from, to);
    };
    codes->bytes = [encoded]() -> Result<std::string> {
      NIBBLE_TRY(both, encoded());
      return std::move(both.codes);
    };
    scales->bytes = [encoded]() -> Result<std::string> {
      NIBBLE_TRY(both, encoded());
      return std::move(both.scales);
    };
    set_scalar(*find(folder, change.tensor_scale), *change.to.tensor);
  }
  return {};
}

}  // namespace nibble::checkpoint::doctor
