#include "quantize/quantize.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "checkpoint/compressed_tensors_check.h"
#include "checkpoint/compressed_tensors_export.h"
#include "checkpoint/load.h"
#include "checkpoint/modelopt_check.h"
#include "checkpoint/modelopt_export.h"
#include "model/config.h"
#include "quantize/copy_files.h"
#include "quantize/write_tensors.h"

namespace nibble::quantize {
namespace {

// The head is no longer the embedding: every place that speaks of it says so, the root in any case.
void untie(Json& json, bool root) {
  constexpr const char* kTied = "tie_word_embeddings";
  if (!json.is_object()) return;
  if (root || json.contains(kTied)) json[kTied] = false;
  for (auto& item : json.items()) untie(item.value(), false);
}

Status write_configs(const Job& job, const Path& source, const QuantizeOptions& options, const Path& folder) {
  if (job.plan.quantized == 0) {
    NIBBLE_TRY(text, read_file(source / "config.json"));
    return write_file(folder / "config.json", text);
  }
  const bool modelopt = options.layout == Layout::modelopt;
  Json config = job.config;
  if (job.plan.untied) untie(config, true);
  config[std::string(checkpoint::kQuantizationConfigKey)] =
      modelopt ? checkpoint::quantization_config(job.plan.modules)
               : checkpoint::compressed_tensors_config(job.plan.modules);
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "config.json", checkpoint::config_text(config)));
  if (!modelopt) return {};
  return write_file(folder / checkpoint::kHfQuantConfigFile,
                    checkpoint::config_text(checkpoint::hf_quant_config(job.plan.modules)));
}

std::string algo_of(const Job& job, Layout layout) {
  if (job.plan.quantized == 0) return "none";
  const Json config = layout == Layout::modelopt ? checkpoint::quantization_config(job.plan.modules)
                                                 : checkpoint::compressed_tensors_config(job.plan.modules);
  return config[layout == Layout::modelopt ? "quant_algo" : "format"].get<std::string>();
}

// Everything but the name of the folder.
Result<QuantizeReport> write_folder(const Path& source, const Path& folder, TensorRecords* records,
                                    const QuantizeOptions& options, ThreadPool& pool) {
  const Stopwatch watch;
  NIBBLE_TRY(job, plan_folder(source, options));
  TensorWriter writer(job, options, records, pool);
  NIBBLE_RETURN_IF_ERROR(writer.write(folder));
  NIBBLE_RETURN_IF_ERROR(write_configs(job, source, options, folder));
  NIBBLE_RETURN_IF_ERROR(copy_other_files(source, folder));
  if (job.plan.quantized > 0 && options.tie_groups) {
    const std::vector<Status> problems = options.layout == Layout::modelopt
                                             ? checkpoint::modelopt_problems(folder, &job.weights)
                                             : checkpoint::compressed_tensors_problems(folder, &job.weights);
    if (!problems.empty()) return problems.front();
  }
  QuantizeReport report;
  report.algo = algo_of(job, options.layout);
  report.source_bytes = job.plan.source_bytes;
  report.bytes = job.plan.bytes;
  report.bytes_per_token = job.plan.bytes_per_token;
  report.effective_bits = job.plan.effective_bits;
  report.effective_bits_with_head = job.plan.effective_bits_with_head;
  report.quantized = writer.take_reports();
  report.seconds = watch.seconds();
  return report;
}

// Forms that a layout has no words for.
Status check_layout(const Plan& plan, Layout layout) {
  for (const PlannedTensor& tensor : plan.tensors) {
    if (layout == Layout::compressed_tensors && tensor.rank > 0) {
      return unsupported("plan: expected a layout with low-rank branches, got compressed-tensors, which has none")
          .with_hint("svdquant is served by nibble only: use --format modelopt, or the recipe gptq or awq_lite");
    }
    if (layout == Layout::modelopt && tensor.format == Format::fp8_channel && tensor.inputs == Inputs::a8) {
      return unsupported(
                 "plan: {}: expected a16 inputs beside fp8_channel, whose inputs ModelOpt scales by token, got a8",
                 tensor.module)
          .with_hint("give the rule \"inputs\": \"a16\" or \"format\": \"fp8\", or use --format compressed-tensors");
    }
  }
  return {};
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
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.inputs == Inputs::a16) continue;
    const auto entry = input_amax.find(tensor.module);
    const float amax = entry == input_amax.end() ? 0 : entry->second;
    const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax, tensor.inputs == Inputs::a4 ? kNvfp4Range : kE4m3Max);
    if (scale.zero || !std::isfinite(amax)) {
      return invalid_argument("calibration: {}: expected an input amax above 0, got {}", tensor.module, amax)
          .with_hint(
              "calibrate on text that reaches every layer (--calib), or leave inputs as they are (--inputs a16)");
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
  if (options.quantize) plan_options.rules = options.recipe.rules;
  plan_options.exclude = options.exclude;
  plan_options.formats = options.formats;
  plan_options.tied = config.tie_embeddings.value_or(weights.find("lm_head.weight") == nullptr);
  plan_options.untie = options.untie || options.recipe.untie;
  if (options.recipe.transform == Transform::svdquant) plan_options.rank = options.recipe.rank;
  NIBBLE_TRY(plan, make_plan(infos, plan_options));
  plan.modules.fp8_kv = options.recipe.fp8_kv;
  NIBBLE_RETURN_IF_ERROR(check_layout(plan, options.layout));
  return Job{std::move(weights), std::move(*json), std::move(plan)};
}

Result<QuantizeReport> quantize_folder(const Path& source, const Path& output, const QuantizeOptions& options,
                                       ThreadPool& pool) {
  NIBBLE_TRY(folder, OutputFolder::create(output));
  NIBBLE_TRY(report, write_folder(source, folder.path(), nullptr, options, pool));
  NIBBLE_RETURN_IF_ERROR(folder.commit());
  return std::move(report);
}

Result<QuantizeReport> quantize_folder(const Path& source, PartialFolder& output, const QuantizeOptions& options,
                                       ThreadPool& pool) {
  NIBBLE_TRY(records, TensorRecords::open(output.records()));
  return write_folder(source, output.path(), &records, options, pool);
}

}  // namespace nibble::quantize
