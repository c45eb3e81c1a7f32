#include "checkpoint/convert_layout.h"

#include <cstring>
#include <map>

#include "checkpoint/compressed_tensors_export.h"
#include "checkpoint/folder_copy.h"
#include "checkpoint/linear_layout.h"
#include "checkpoint/load.h"
#include "checkpoint/modelopt_export.h"
#include "io/json.h"
#include "ops/quant/fp8.h"
#include "ops/quant/nvfp4.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

using ops::WeightFormat;

constexpr const char* kConfigFile = "config.json";

std::string module_of(const std::string& tensor) {
  const size_t dot = tensor.rfind('.');
  return tensor.substr(0, dot == std::string::npos ? 0 : dot);
}

bool is_weight(const std::string& tensor) {
  return tensor.ends_with(kWeightSuffix) || tensor.ends_with(kWeightPackedSuffix);
}

bool is_cache_scale(const std::string& tensor) {
  return tensor.ends_with(".k_scale") || tensor.ends_with(".v_scale");
}

// What a linear is in the source: its form, and its parts in memory or in the mapped files.
struct Quantized {
  QuantizedModule module;
  const ops::Linear* linear = nullptr;
};

Format format_of(const ops::Linear& linear) {
  if (linear.format == WeightFormat::nvfp4) return Format::nvfp4;
  return linear.channel_scale.empty() ? Format::fp8 : Format::fp8_channel;
}

Inputs inputs_of(const ops::Linear& linear) {
  if (linear.inputs == ops::InputRounding::nvfp4) return Inputs::a4;
  return linear.inputs == ops::InputRounding::fp8 ? Inputs::a8 : Inputs::a16;
}

Status check_form(const Quantized& one, TargetLayout target) {
  if (target == TargetLayout::bf16) return {};
  const std::string& name = one.module.name;
  if (one.linear->format == WeightFormat::f32) {
    return unsupported("{}: expected codes alone, got pre_quant_scale beside them, which this layout has not", name)
        .with_hint(
            "--format bf16, or better `nibble quantize` from the BF16 model: the norms of ModelOpt's AWQ are wrong");
  }
  if (target == TargetLayout::compressed_tensors && one.module.low_rank) {
    return unsupported("{}: expected codes alone, got a low-rank branch, which compressed-tensors has not", name)
        .with_hint("--format bf16");
  }
  if (target == TargetLayout::modelopt && one.module.format == Format::fp8_channel && one.module.inputs == Inputs::a8) {
    return unsupported("{}: expected a16 inputs beside FP8 by channel, whose inputs ModelOpt scales by token, got a8",
                       name)
        .with_hint("--format bf16");
  }
  return {};
}

class Conversion {
 public:
  Conversion(const Path& source, TargetLayout target, const ConvertOptions& options)
      : source_(source), target_(target), options_(options) {}

  Status open();
  Status write(const Path& folder);
  Converted take() { return std::move(out_); }

 private:
  Layout layout() const { return target_ == TargetLayout::modelopt ? Layout::modelopt : Layout::compressed_tensors; }
  const Quantized* find(const std::string& module) const {
    const auto found = quantized_.find(module);
    return found == quantized_.end() ? nullptr : &found->second;
  }
  Status collect();
  bool dropped(const std::string& tensor) const;
  Status append_dense(const Quantized& one, ShardedSafetensorsWriter& writer);
  Status append_copy(const SafetensorsFolder::Entry& entry, ShardedSafetensorsWriter& writer);
  Status write_tensors(const Path& folder);
  Status write_configs(const Path& folder);

  const Path& source_;
  const TargetLayout target_;
  const ConvertOptions& options_;
  Json config_;
  std::optional<LoadedModel> model_;
  std::optional<SafetensorsFolder> files_;
  std::map<std::string, Quantized> quantized_;
  QuantizedModules modules_;
  Converted out_;
};

Status Conversion::open() {
  LoadOptions load;
  load.check_values = false;
  load.pool = options_.pool;
  load.cancel = options_.cancel;
  NIBBLE_TRY(model, load_checkpoint(source_, load));
  model_ = std::move(model);
  if (!model_->quantization.quantized()) {
    return invalid_argument("convert: expected a quantized checkpoint, got full precision ({})", source_.string())
        .with_hint("`nibble quantize` makes one of it");
  }
  NIBBLE_TRY(files, SafetensorsFolder::open(source_));
  files_ = std::move(files);
  NIBBLE_TRY(text, read_file(source_ / kConfigFile));
  NIBBLE_TRY(config, parse_json(text, kConfigFile));
  config_ = std::move(config);
  return collect();
}

Status Conversion::collect() {
  const model::Weights& weights = model_->weights;
  Status status;
  weights.for_each_linear([&](std::string_view name, const ops::Linear& linear) {
    const std::string module(name);
    const SafetensorsFolder::Entry* codes = files_->find(fmt::format("{}{}", module, kWeightPackedSuffix));
    if (codes == nullptr) codes = files_->find(fmt::format("{}{}", module, kWeightSuffix));
    if (codes == nullptr || !(codes->info->dtype == "U8" || codes->info->dtype == "F8_E4M3")) return;
    Quantized one{{module, format_of(linear), inputs_of(linear), !linear.low_rank_a.empty()}, &linear};
    if (linear.format == WeightFormat::f32) one.module.format = Format::nvfp4;
    if (status.ok()) status = check_form(one, target_);
    quantized_.emplace(module, std::move(one));
  });
  NIBBLE_RETURN_IF_ERROR(status);
  for (const SafetensorsFolder::Entry& entry : files_->tensors()) {
    const std::string& name = entry.info->name;
    if (!is_weight(name) || entry.info->shape.size() < 2) continue;
    const std::string module = module_of(name);
    if (const Quantized* one = find(module)) {
      modules_.quantized.push_back(one->module);
    } else if (entry.info->dtype == "U8" || entry.info->dtype == "F8_E4M3") {
      return unsupported("{}: expected codes in the language model alone, got {}", name, entry.info->text())
          .with_hint("quantize the BF16 model again: nibble keeps the draft head and the vision tower in BF16");
    } else {
      modules_.unquantized.push_back(module);
    }
  }
  const Json* section = find_value(config_, "quantization_config");
  modules_.fp8_kv = section != nullptr && find_value(*section, "kv_cache_scheme") != nullptr;
  out_.linears = static_cast<int64_t>(modules_.quantized.size());
  return {};
}

// Companions of quantized weights, which are written beside them in the new layout's form, and scales of a quantized
// cache where the new form has none.
bool Conversion::dropped(const std::string& tensor) const {
  if (is_cache_scale(tensor)) return target_ != TargetLayout::modelopt;
  return !is_weight(tensor) && find(module_of(tensor)) != nullptr;
}

Status Conversion::append_dense(const Quantized& one, ShardedSafetensorsWriter& writer) {
  const ops::Linear& linear = *one.linear;
  const Shape shape{linear.out, linear.in};
  std::optional<ThreadPool> alone;
  Context cx(options_.pool != nullptr ? *options_.pool : alone.emplace(1));
  const OwnedTensor values(DType::f32, shape), rounded(DType::bf16, shape);
  const Tensor* wide = &values.view;
  if (linear.format == WeightFormat::f32) {
    wide = &linear.weight;
  } else if (linear.format == WeightFormat::nvfp4) {
    ops::nvfp4_dequantize(cx, linear.weight, linear.block_scale, linear.tensor_scale, values.view);
  } else if (linear.channel_scale.empty()) {
    ops::fp8_dequantize(cx, linear.weight, linear.tensor_scale, values.view);
  } else {
    ops::fp8_dequantize_channels(cx, linear.weight, linear.channel_scale, values.view);
  }
  if (one.module.low_rank) {
    const int64_t rank = linear.low_rank_a.dim(0);
    const auto half = [](const Tensor& t, int64_t i) {
      uint16_t word;
      std::memcpy(&word, static_cast<const std::byte*>(t.raw()) + 2 * static_cast<size_t>(i), sizeof word);
      return bf16_to_f32(word);
    };
    for (int64_t n = 0; n < linear.out; ++n) {
      for (int64_t r = 0; r < rank; ++r) {
        const float b = half(linear.low_rank_b, n * rank + r);
        for (int64_t k = 0; k < linear.in; ++k) {
          values.view.f32()[n * linear.in + k] += b * half(linear.low_rank_a, r * linear.in + k);
        }
      }
    }
  }
  auto* to = static_cast<uint16_t*>(rounded.view.raw());
  for (int64_t i = 0; i < wide->elements(); ++i) to[i] = f32_to_bf16(wide->f32()[i]);
  return writer.append(fmt::format("{}{}", one.module.name, kWeightSuffix), rounded.view);
}

Status Conversion::append_copy(const SafetensorsFolder::Entry& entry, ShardedSafetensorsWriter& writer) {
  constexpr size_t kPiece = size_t{64} << 20;
  const std::span<const std::byte> bytes = entry.file->bytes(*entry.info);
  for (size_t begin = 0; begin == 0 || begin < bytes.size(); begin += kPiece) {
    NIBBLE_RETURN_IF_ERROR(
        writer.append(entry.info->name, bytes.subspan(begin, std::min(kPiece, bytes.size() - begin))));
  }
  return {};
}

Status Conversion::write_tensors(const Path& folder) {
  std::vector<TensorDeclaration> declarations;
  uint64_t total = 0, done = 0;
  for (const SafetensorsFolder::Entry& entry : files_->tensors()) {
    const std::string& name = entry.info->name;
    total += entry.info->bytes;
    if (dropped(name)) continue;
    const Quantized* one = is_weight(name) ? find(module_of(name)) : nullptr;
    if (one == nullptr) {
      declarations.emplace_back(*entry.info);
      continue;
    }
    const ops::Linear& linear = *one->linear;
    if (target_ == TargetLayout::bf16) {
      declarations.emplace_back(fmt::format("{}{}", one->module.name, kWeightSuffix), DType::bf16,
                                Shape{linear.out, linear.in});
      continue;
    }
    const int64_t rank = one->module.low_rank ? linear.low_rank_a.dim(0) : 0;
    for (TensorDeclaration& part : declare_linear(layout(), one->module, linear.out, linear.in, rank)) {
      declarations.push_back(std::move(part));
    }
  }
  NIBBLE_TRY(writer, ShardedSafetensorsWriter::create(folder, std::move(declarations)));
  for (const SafetensorsFolder::Entry& entry : files_->tensors()) {
    if (options_.cancel.cancelled()) return cancelled("convert: stopped at {}", entry.info->name);
    const std::string& name = entry.info->name;
    const Quantized* one = is_weight(name) ? find(module_of(name)) : nullptr;
    if (!dropped(name)) {
      NIBBLE_RETURN_IF_ERROR(one == nullptr ? append_copy(entry, writer)
                             : target_ == TargetLayout::bf16
                                 ? append_dense(*one, writer)
                                 : append_linear(layout(), one->module, *one->linear, writer));
    }
    // The companions of a weight are read with it, wherever they stand.
    if (one == nullptr && find(module_of(name)) == nullptr) entry.file->drop(*entry.info);
    report(options_.progress, done += entry.info->bytes, total, name);
  }
  NIBBLE_RETURN_IF_ERROR(writer.commit());
  out_.bytes = writer.total_bytes();
  return {};
}

Status Conversion::write_configs(const Path& folder) {
  constexpr const char* kSection = "quantization_config";
  config_.erase(kSection);
  const auto text = config_.find("text_config");
  if (text != config_.end() && text->is_object()) text->erase(kSection);
  if (target_ != TargetLayout::bf16) {
    Json section =
        target_ == TargetLayout::modelopt ? quantization_config(modules_) : compressed_tensors_config(modules_);
    out_.algo = section[target_ == TargetLayout::modelopt ? "quant_algo" : "format"].get<std::string>();
    config_[kSection] = std::move(section);
  }
  if (target_ == TargetLayout::modelopt) {
    NIBBLE_RETURN_IF_ERROR(write_file(folder / kHfQuantConfigFile, config_text(hf_quant_config(modules_))));
  } else if (modules_.fp8_kv) {
    out_.notes.emplace_back("the FP8 cache is not asked for any more: its scales have no place in this layout");
  }
  return write_file(folder / kConfigFile, config_text(config_));
}

Status Conversion::write(const Path& folder) {
  NIBBLE_RETURN_IF_ERROR(copy_folder(source_, folder, [](const Path& file) {
    const std::string name = file.string();
    return name != kConfigFile && name != kHfQuantConfigFile && !name.ends_with(".safetensors") &&
           !name.ends_with(".safetensors.index.json");
  }));
  NIBBLE_RETURN_IF_ERROR(write_tensors(folder));
  NIBBLE_RETURN_IF_ERROR(write_configs(folder));
  return check_checkpoint(folder);
}

}  // namespace

std::optional<TargetLayout> target_layout_named(std::string_view word) {
  if (word == "modelopt") return TargetLayout::modelopt;
  if (word == "compressed-tensors") return TargetLayout::compressed_tensors;
  if (word == "bf16") return TargetLayout::bf16;
  return {};
}

Result<Converted> convert_layout(const Path& source, const Path& output, TargetLayout target,
                                 const ConvertOptions& options) {
  Conversion conversion(source, target, options);
  NIBBLE_RETURN_IF_ERROR(conversion.open());
  NIBBLE_RETURN_IF_ERROR(check_outside(source, output));
  NIBBLE_TRY(folder, OutputFolder::create(output));
  NIBBLE_RETURN_IF_ERROR(conversion.write(folder.path()));
  NIBBLE_RETURN_IF_ERROR(folder.commit());
  return conversion.take();
}

}  // namespace nibble::checkpoint
