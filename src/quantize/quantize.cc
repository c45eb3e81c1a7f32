#include "quantize/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/clock.h"
#include "checkpoint/load.h"
#include "checkpoint/modelopt_check.h"
#include "checkpoint/modelopt_export.h"
#include "model/config.h"
#include "quantize/copy_files.h"
#include "quantize/strategy.h"

namespace nibble::quantize {
namespace {

using checkpoint::ModelOptConfig;

constexpr uint64_t kCopyBytes = uint64_t{64} << 20;  // a multiple of every element size

// The tensor scales of one fused group.
struct GroupScales {
  float amax = 0;         // of its weights
  float input_scale = 0;  // 0 without calibration
};

// "3,17" for element 17 of row 3; tensors of other ranks alike.
std::string element_text(const std::vector<int64_t>& shape, int64_t flat) {
  std::string text;
  for (size_t i = shape.size(); i-- > 0;) {
    const int64_t index = flat % shape[i];
    flat /= shape[i];
    text = text.empty() ? std::to_string(index) : fmt::format("{},{}", index, text);
  }
  return text;
}

Status not_finite(const TensorInfo& info, int64_t flat, const MappedFile& file) {
  return corrupt("weight not finite: {}[{}]: expected a number, got NaN or infinity ({})", info.name,
                 element_text(info.shape, flat), file.path().filename().string())
      .with_hint("training diverged or the file was damaged: take an earlier checkpoint");
}

// One quantization under way: what both passes share.
class Quantizer {
 public:
  Quantizer(const Job& job, const QuantizeOptions& options, Strategy strategy, ThreadPool& pool)
      : job_(job), options_(options), strategy_(strategy), cx_(pool) {
    total_ = job.plan.source_bytes;
    for (const PlannedTensor& tensor : job.plan.tensors) {
      if (tensor.quantized()) total_ += tensor.source->bytes;
    }
  }

  // Activations first: a missing calibration entry is found before any weight is read.
  Status find_input_scales() {
    NIBBLE_TRY(scales, group_input_scales(job_.plan, options_.input_amax));
    groups_.resize(scales.size());
    for (size_t i = 0; i < scales.size(); ++i) groups_[i].input_scale = scales[i];
    return {};
  }

  Status find_amaxes() {
    for (const PlannedTensor& tensor : job_.plan.tensors) {
      if (!tensor.quantized()) continue;
      NIBBLE_TRY(amax, amax_of(tensor));
      group(tensor).amax = std::max(group(tensor).amax, amax);
    }
    return {};
  }

  Status write_tensors(const Path& folder) {
    NIBBLE_TRY(writer, ShardedSafetensorsWriter::create(folder, declarations(),
                                                        {{"format", "pt"}, {"quantized_by", "nibble " NIBBLE_VERSION}},
                                                        options_.shard_bytes));
    for (const PlannedTensor& tensor : job_.plan.tensors) {
      NIBBLE_RETURN_IF_ERROR(tensor.quantized() ? write_quantized(tensor, writer) : write_copy(tensor, writer));
    }
    return writer.commit();
  }

  std::vector<QuantizedTensor> take_reports() { return std::move(reports_); }

 private:
  GroupScales& group(const PlannedTensor& tensor) { return groups_[static_cast<size_t>(tensor.group)]; }

  const Safetensors& file_of(const PlannedTensor& tensor) const {
    return *job_.weights.find(tensor.source->name)->file;
  }

  bool quantized_inputs() const { return !options_.input_amax.empty(); }

  // What the output is made of: the replacement where there is one.
  Result<Tensor> values_of(const PlannedTensor& tensor) const {
    if (options_.replace) {
      NIBBLE_TRY(values, options_.replace(*tensor.source));
      if (!values.empty()) {
        NIBBLE_CHECK(values.bytes() == tensor.source->bytes);
        return values;
      }
    }
    return file_of(tensor).tensor(*tensor.source);
  }

  Status advance(const TensorInfo& info, uint64_t bytes) {
    done_ += bytes;
    report(options_.progress, done_, total_, info.name);
    return options_.cancel.cancelled() ? cancelled("quantize: stopped before the end; nothing was written") : Status();
  }

  Result<float> amax_of(const PlannedTensor& tensor) {
    const TensorInfo& info = *tensor.source;
    const Safetensors& file = file_of(tensor);
    NIBBLE_TRY(w, values_of(tensor));
    const ops::TensorAmax amax = ops::tensor_amax(cx_, w);
    if (!amax.finite()) return not_finite(info, amax.row * w.dim(1) + amax.col, file.mapping());
    file.drop(info);
    NIBBLE_RETURN_IF_ERROR(advance(info, info.bytes));
    return amax.amax;
  }

  std::vector<TensorDeclaration> declarations() const {
    std::vector<TensorDeclaration> list;
    for (const PlannedTensor& tensor : job_.plan.tensors) {
      const TensorInfo& info = *tensor.source;
      if (!tensor.quantized()) {
        list.emplace_back(info);
        continue;
      }
      const int64_t rows = info.shape[0], columns = info.shape[1];
      list.emplace_back(info.name, DType::u8, Shape{rows, columns / 2});
      list.emplace_back(name(tensor, checkpoint::kWeightScaleSuffix), DType::f8e4m3,
                        Shape{rows, columns / kNvfp4Block});
      list.emplace_back(name(tensor, checkpoint::kWeightScale2Suffix), DType::f32, Shape{});
      if (quantized_inputs()) list.emplace_back(name(tensor, checkpoint::kInputScaleSuffix), DType::f32, Shape{});
    }
    return list;
  }

  static std::string name(const PlannedTensor& tensor, std::string_view suffix) {
    return tensor.module + std::string(suffix);
  }

  Status write_quantized(const PlannedTensor& tensor, ShardedSafetensorsWriter& writer) {
    const TensorInfo& info = *tensor.source;
    const Safetensors& file = file_of(tensor);
    NIBBLE_TRY(w, values_of(tensor));
    float amax = group(tensor).amax;
    if (!options_.tie_groups) amax = ops::tensor_amax(cx_, w).amax;
    Nvfp4TensorScale scale = nvfp4_tensor_scale(amax, strategy_.range);

    const OwnedTensor codes(DType::u8, {w.dim(0), w.dim(1) / 2});
    const OwnedTensor scales(DType::f8e4m3, {w.dim(0), w.dim(1) / kNvfp4Block});
    const ops::Linear* given = options_.scales ? options_.scales(tensor.module) : nullptr;
    if (given != nullptr) {
      scale.ws2 = given->tensor_scale;
      std::memcpy(scales.view.raw(), given->block_scale.raw(), scales.view.bytes());
    } else {
      strategy_.choose_scales(cx_, w, scale, scales.view);
    }
    const ops::Nvfp4Stats stats = ops::nvfp4_encode(cx_, w, scale, scales.view, codes.view);
    file.drop(info);
    if (stats.lost_rows > 0) {
      return corrupt("{}: row {}: expected values that survive 4 bits, got a row that becomes zero ({} such rows)",
                     info.name, stats.first_lost_row, stats.lost_rows)
          .with_hint(fmt::format("keep the tensor as it is: --exclude \"{}\"", tensor.module));
    }
    reports_.push_back({tensor.module, scale.ws2, stats});

    NIBBLE_RETURN_IF_ERROR(writer.append(info.name, codes.view));
    NIBBLE_RETURN_IF_ERROR(writer.append(name(tensor, checkpoint::kWeightScaleSuffix), scales.view));
    const Tensor weight_scale_2 = Tensor::constant(&scale.ws2, DType::f32, {});
    NIBBLE_RETURN_IF_ERROR(writer.append(name(tensor, checkpoint::kWeightScale2Suffix), weight_scale_2));
    if (quantized_inputs()) {
      const Tensor input_scale = Tensor::constant(&group(tensor).input_scale, DType::f32, {});
      NIBBLE_RETURN_IF_ERROR(writer.append(name(tensor, checkpoint::kInputScaleSuffix), input_scale));
    }
    return advance(info, info.bytes);
  }

  // Byte for byte, in pieces, looking for NaN on the way: a broken norm ruins a model like a broken matrix does.
  Status write_copy(const PlannedTensor& tensor, ShardedSafetensorsWriter& writer) {
    const TensorInfo& info = *tensor.source;
    const MappedFile& mapping = file_of(tensor).mapping();
    std::span<const std::byte> bytes = file_of(tensor).bytes(info);
    bool mapped = true;
    if (options_.replace) {
      NIBBLE_TRY(values, options_.replace(info));
      if (!values.empty()) {
        NIBBLE_CHECK(values.bytes() == bytes.size());
        bytes = {static_cast<const std::byte*>(values.raw()), values.bytes()};
        mapped = false;
      }
    }
    const bool is_float = info.type == DType::f32 || info.type == DType::bf16 || info.type == DType::f16;
    for (uint64_t begin = 0; begin < bytes.size(); begin += kCopyBytes) {
      const std::span<const std::byte> piece = bytes.subspan(begin, std::min(kCopyBytes, bytes.size() - begin));
      if (is_float) {
        const auto elements = static_cast<int64_t>(piece.size() / size_of(*info.type));
        const ops::TensorAmax amax = ops::tensor_amax(cx_, Tensor::constant(piece.data(), *info.type, {1, elements}));
        const auto before = static_cast<int64_t>(begin / size_of(*info.type));
        if (!amax.finite()) return not_finite(info, before + amax.col, mapping);
      }
      NIBBLE_RETURN_IF_ERROR(writer.append(info.name, piece));
      if (mapped) mapping.drop(static_cast<size_t>(piece.data() - mapping.bytes().data()), piece.size());
      NIBBLE_RETURN_IF_ERROR(advance(info, piece.size()));
    }
    return {};
  }

  const Job& job_;
  const QuantizeOptions& options_;
  const Strategy strategy_;
  Context cx_;
  std::vector<GroupScales> groups_;
  std::vector<QuantizedTensor> reports_;
  uint64_t done_ = 0, total_ = 0;
};

Status write_configs(const Job& job, const Path& source, const QuantizeOptions& options, const Path& folder) {
  if (!options.quantize) {
    NIBBLE_TRY(text, read_file(source / "config.json"));
    return write_file(folder / "config.json", text);
  }
  const ModelOptConfig quantization{!options.input_amax.empty(), job.plan.exclude_modules};
  Json config = job.config;
  config[std::string(checkpoint::kQuantizationConfigKey)] = checkpoint::quantization_config(quantization);
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "config.json", checkpoint::config_text(config)));
  return write_file(folder / checkpoint::kHfQuantConfigFile,
                    checkpoint::config_text(checkpoint::hf_quant_config(quantization)));
}

Result<Json> read_config(const Path& source) {
  NIBBLE_TRY(text, read_file(source / "config.json"));
  return parse_json(text, "config.json");
}

}  // namespace

double QuantizeReport::relative_error() const {
  double energy = 0, error = 0;
  for (const QuantizedTensor& tensor : quantized) {
    energy += tensor.stats.energy;
    error += tensor.stats.error;
  }
  return energy > 0 ? error / energy : 0;
}

Result<std::vector<float>> group_input_scales(const Plan& plan, const std::map<std::string, float>& input_amax) {
  std::vector<float> scales(static_cast<size_t>(plan.groups), 0.0f);
  if (input_amax.empty()) return scales;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.quantized()) continue;
    const auto entry = input_amax.find(tensor.module);
    const float amax = entry == input_amax.end() ? 0 : entry->second;
    const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax);
    if (scale.zero || !std::isfinite(amax)) {
      return invalid_argument("calibration: {}: expected an input amax above 0, got {}", tensor.module, amax)
          .with_hint("calibrate on text that reaches every layer, or quantize without --calib");
    }
    float& group = scales[static_cast<size_t>(tensor.group)];
    group = std::max(group, scale.ws2);
  }
  return scales;
}

Result<Job> plan_folder(const Path& source, const QuantizeOptions& options) {
  const Status sound = checkpoint::check_checkpoint(source);
  Result<Json> json = read_config(source);
  const bool quantized = json.ok() && json->contains(checkpoint::kQuantizationConfigKey) &&
                         !(*json)[checkpoint::kQuantizationConfigKey].is_null();
  if (quantized) {  // whether nibble could read it or not
    return invalid_argument("quantize: expected unquantized weights, got a checkpoint with quantization_config ({})",
                            source.string())
        .with_hint("start from the BF16 folder it was made from");
  }
  NIBBLE_RETURN_IF_ERROR(sound);
  NIBBLE_RETURN_IF_ERROR(json.status());
  NIBBLE_TRY(config, model::parse_config(*json));
  NIBBLE_TRY(weights, SafetensorsFolder::open(source));
  std::vector<const TensorInfo*> infos;
  for (const SafetensorsFolder::Entry& entry : weights.tensors()) infos.push_back(entry.info);
  PlanOptions plan_options;
  plan_options.quantize = options.quantize;
  plan_options.exclude = options.exclude;
  plan_options.tied = config.tie_embeddings.value_or(weights.find("lm_head.weight") == nullptr);
  plan_options.quantized_inputs = !options.input_amax.empty();
  NIBBLE_TRY(plan, make_plan(infos, plan_options));
  return Job{std::move(weights), std::move(*json), std::move(plan)};
}

Result<QuantizeReport> quantize_folder(const Path& source, const Path& output, const QuantizeOptions& options,
                                       ThreadPool& pool) {
  const Stopwatch watch;
  NIBBLE_TRY(strategy, find_strategy(options.strategy));
  NIBBLE_TRY(job, plan_folder(source, options));
  NIBBLE_TRY(folder, OutputFolder::create(output));

  Quantizer quantizer(job, options, strategy, pool);
  NIBBLE_RETURN_IF_ERROR(quantizer.find_input_scales());
  NIBBLE_RETURN_IF_ERROR(quantizer.find_amaxes());
  NIBBLE_RETURN_IF_ERROR(quantizer.write_tensors(folder.path()));
  NIBBLE_RETURN_IF_ERROR(write_configs(job, source, options, folder.path()));
  NIBBLE_RETURN_IF_ERROR(copy_other_files(source, folder.path()));
  if (options.quantize && options.tie_groups) {
    const std::vector<Status> problems = checkpoint::modelopt_problems(folder.path(), &job.weights);
    if (!problems.empty()) return problems.front();
  }
  NIBBLE_RETURN_IF_ERROR(folder.commit());

  QuantizeReport report;
  report.source_bytes = job.plan.source_bytes;
  report.bytes = job.plan.bytes;
  report.bytes_per_token = job.plan.bytes_per_token;
  report.quantized = quantizer.take_reports();
  report.seconds = watch.seconds();
  return report;
}

}  // namespace nibble::quantize
