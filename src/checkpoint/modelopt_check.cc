#include "checkpoint/modelopt_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <string>

#include "checkpoint/fused_linears.h"
#include "checkpoint/modelopt_export.h"
#include "checkpoint/quantization.h"
#include "io/json.h"
#include "model/config.h"

namespace nibble::checkpoint {
namespace {

using Entry = SafetensorsFolder::Entry;

// One module that has a `.weight` of rank 2 or more, and what stands beside it.
struct Module {
  std::string name;
  Entry weight;
  const Entry* block_scales = nullptr;
  const Entry* tensor_scale = nullptr;
  const Entry* input_scale = nullptr;

  bool quantized() const { return weight.info->dtype == "U8" || block_scales != nullptr || tensor_scale != nullptr; }
};

// The number in an F32 scalar, if it is one.
std::optional<float> scalar(const Entry* entry) {
  if (entry == nullptr || entry->info->dtype != "F32" || !entry->info->shape.empty()) return {};
  float value;
  std::memcpy(&value, entry->file->bytes(*entry->info).data(), sizeof value);
  return value;
}

class Checker {
 public:
  explicit Checker(const SafetensorsFolder& tensors) : tensors_(tensors) {
    for (const Entry& entry : tensors.tensors()) {
      const std::string& name = entry.info->name;
      if (!name.ends_with(kWeightSuffix) || entry.info->shape.size() < 2) continue;
      const std::string module = name.substr(0, name.size() - kWeightSuffix.size());
      modules_.push_back({module, entry, find(module, kWeightScaleSuffix), find(module, kWeightScale2Suffix),
                          find(module, kInputScaleSuffix)});
    }
  }

  void check_modules(const Quantization& config) {
    for (const Module& module : modules_) {
      const bool excluded = config.excludes(module.name);
      if (!module.quantized()) {
        if (!excluded) problem("{}: unquantized, but no entry of exclude_modules matches it", module.name);
        continue;
      }
      if (excluded) problem("{}: quantized, but an entry of exclude_modules matches it", module.name);
      check_weight(module);
      check_scalar(module, module.tensor_scale, kWeightScale2Suffix);
      if (config.rounds_inputs()) {
        check_scalar(module, module.input_scale, kInputScaleSuffix);
      } else if (module.input_scale != nullptr) {
        problem("{}{}: expected none, as activations are not quantized", module.name, kInputScaleSuffix);
      }
    }
  }

  void check_fused() {
    std::map<std::string, const Module*> first;
    for (const Module& module : modules_) {
      const auto [it, inserted] = first.emplace(fused_module(module.name), &module);
      const Module& other = *it->second;
      if (inserted) continue;
      if (module.quantized() != other.quantized()) {
        problem("{}: expected the format of {}, with which servers fuse it", module.name, other.name);
      } else if (scalar(module.tensor_scale) != scalar(other.tensor_scale) ||
                 scalar(module.input_scale) != scalar(other.input_scale)) {
        problem("{}: expected the tensor and input scale of {}, with which servers fuse it", module.name, other.name);
      }
    }
  }

  void check_against(const SafetensorsFolder& source) {
    for (const Entry& entry : source.tensors()) {
      const Entry* here = tensors_.find(entry.info->name);
      if (here == nullptr) {
        problem("{}: expected every tensor of the source, got none of that name", entry.info->name);
      } else if (here->info->dtype != "U8" && here->info->text() != entry.info->text()) {
        problem("{}: expected {} as in the source, got {}", entry.info->name, entry.info->text(), here->info->text());
      }
    }
  }

  void check_head(const model::Config& config) {
    if (config.tie_embeddings == false && tensors_.find("lm_head.weight") == nullptr) {
      problem("lm_head.weight: expected in an untied model, got none");
    }
  }

  std::vector<Status> take() { return std::move(problems_); }

 private:
  const Entry* find(const std::string& module, std::string_view suffix) const {
    return tensors_.find(module + std::string(suffix));
  }

  template <class... A>
  void problem(fmt::format_string<A...> format, A&&... args) {
    problems_.push_back(fail(Code::corrupt, format, std::forward<A>(args)...));
  }

  void check_weight(const Module& module) {
    const TensorInfo& weight = *module.weight.info;
    if (weight.dtype != "U8" || weight.shape.size() != 2 || weight.shape[1] % 8 != 0) {
      return problem("{}: expected two-dimensional U8 codes, got {}", weight.name, weight.text());
    }
    const std::vector<int64_t> expected = {weight.shape[0], weight.shape[1] / 8};
    if (module.block_scales == nullptr) return problem("{}{}: missing", module.name, kWeightScaleSuffix);
    const TensorInfo& scales = *module.block_scales->info;
    if (scales.dtype != "F8_E4M3" || scales.shape != expected) {
      return problem("{}: expected [{},{}] F8_E4M3, got {}", scales.name, expected[0], expected[1], scales.text());
    }
    for (std::byte byte : module.block_scales->file->bytes(scales)) {
      if (byte == std::byte{0} || byte >= std::byte{0x7F}) {
        problem("{}: expected finite scales above 0, got the byte 0x{:02X}", scales.name, static_cast<int>(byte));
        break;
      }
    }
    module.block_scales->file->drop(scales);
  }

  void check_scalar(const Module& module, const Entry* entry, std::string_view suffix) {
    if (entry == nullptr) return problem("{}{}: missing", module.name, suffix);
    const std::optional<float> value = scalar(entry);
    if (!value) return problem("{}: expected a scalar F32, got {}", entry->info->name, entry->info->text());
    if (!std::isfinite(*value) || *value <= 0) {
      problem("{}: expected a finite number above 0, got {}", entry->info->name, *value);
    }
  }

  const SafetensorsFolder& tensors_;
  std::vector<Module> modules_;
  std::vector<Status> problems_;
};

Result<Json> read_json(const Path& file) {
  NIBBLE_TRY(text, read_file(file));
  return parse_json(text, file.filename().string());
}

// What both files say. The reader would unite their excludes; here a difference is a fault.
Result<Quantization> read_agreeing_configs(const Path& folder, const Json& config) {
  NIBBLE_TRY(hf_json, read_json(folder / kHfQuantConfigFile));
  NIBBLE_TRY(hf, read_quantization(Json::object(), hf_json));
  NIBBLE_TRY(embedded, read_quantization(config, std::nullopt));
  const auto sorted = [](std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    return names;
  };
  if (hf.algo != embedded.algo || sorted(hf.exclude) != sorted(embedded.exclude)) {
    return corrupt("{}: expected the quant_algo and excludes of config.json, got others", kHfQuantConfigFile);
  }
  return std::move(hf);
}

Result<std::vector<Status>> find_problems(const Path& folder, const SafetensorsFolder* source) {
  NIBBLE_TRY(json, read_json(folder / "config.json"));
  NIBBLE_TRY(config, model::parse_config(json));
  NIBBLE_TRY(quantization, read_agreeing_configs(folder, json));
  NIBBLE_TRY(tensors, SafetensorsFolder::open(folder));
  Checker checker(tensors);
  checker.check_modules(quantization);
  checker.check_fused();
  checker.check_head(config);
  if (source != nullptr) checker.check_against(*source);
  return checker.take();
}

}  // namespace

std::vector<Status> modelopt_problems(const Path& folder, const SafetensorsFolder* source) {
  Result<std::vector<Status>> problems = find_problems(folder, source);
  if (!problems.ok()) return {problems.status()};
  return std::move(problems).value();
}

}  // namespace nibble::checkpoint
