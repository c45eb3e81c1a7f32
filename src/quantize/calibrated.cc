#include "quantize/calibrated.h"

#include <algorithm>

#include "base/clock.h"
#include "ops/quant/fp8.h"
#include "quantize/calibrate.h"
#include "quantize/layerwise.h"

namespace nibble::quantize {
namespace {

constexpr const char* kAmaxFile = "input_amax.json";
constexpr const char* kScoresFile = "sensitivity.json";

constexpr Format kMeasured[] = {Format::nvfp4, Format::fp8};  // what sensitivity is measured of

Status damaged(const Path& file) {
  return corrupt("calibration record: expected one of this run, got another ({})", file.string())
      .with_hint("remove the unfinished output and start again");
}

bool is_numbers(const Json& list, size_t count) {
  return list.is_array() && list.size() == count &&
         std::all_of(list.begin(), list.end(), [](const Json& item) { return item.is_number(); });
}

bool is_there(const Path& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored);
}

Result<Json> read_json(const Path& file) {
  NIBBLE_TRY(text, read_file(file));
  return parse_json(text, file.filename().string());
}

bool rounds_inputs(const Plan& plan) {
  return std::any_of(plan.tensors.begin(), plan.tensors.end(),
                     [](const PlannedTensor& tensor) { return tensor.quantized() && tensor.inputs != Inputs::a16; });
}

class CalibratedJob {
 public:
  CalibratedJob(Context& cx, const Path& source, PartialFolder& output, model::Weights& weights,
                std::span<const std::vector<int32_t>> chats, const CalibratedOptions& options)
      : cx_(cx), source_(source), output_(output), weights_(weights), chats_(chats), options_(options) {
    quantize_ = options.quantize;
  }

  Result<CalibratedReport> run() {
    const Stopwatch watch;
    for (const auto& chat : chats_) result_.tokens += static_cast<int64_t>(chat.size());
    if (budget_.set()) NIBBLE_RETURN_IF_ERROR(choose());
    NIBBLE_TRY(job, plan_folder(source_, quantize_));
    if (rounds_inputs(job.plan)) NIBBLE_RETURN_IF_ERROR(find_input_amax());
    SolvedLayers solved(output_.work(), weights_);
    if (needs_layerwise(quantize_.recipe)) {
      NIBBLE_RETURN_IF_ERROR(solve(job.plan, quantize_.recipe, output_.work(), "solve"));
      NIBBLE_RETURN_IF_ERROR(take_losses(job.plan, solved));
      hook(solved);
    }
    quantize_.progress = progress("write");
    NIBBLE_TRY(report, quantize_folder(source_, output_, quantize_, cx_.pool));
    result_.report = std::move(report);
    result_.seconds = watch.seconds();
    return std::move(result_);
  }

 private:
  Progress progress(std::string_view stage) const { return options_.progress ? options_.progress(stage) : Progress(); }

  Status solve(const Plan& plan, const Recipe& recipe, const Path& work, std::string_view stage) {
    return solve_layers(cx_, weights_, plan, chats_, {recipe, quantize_.input_amax, work, progress(stage)});
  }

  Status find_input_amax() {
    const Path file = output_.work() / kAmaxFile;
    if (!is_there(file)) {
      NIBBLE_TRY(calibration, calibrate(cx_, weights_, {chats_.begin(), chats_.end()}, progress("calibrate")));
      NIBBLE_RETURN_IF_ERROR(write_file(file, Json(calibration.input_amax).dump()));
    }
    NIBBLE_TRY(json, read_json(file));
    for (const auto& [module, amax] : json.items()) {
      if (!amax.is_number()) return damaged(file);
      quantize_.input_amax[module] = amax.get<float>();
    }
    return {};
  }

  /// Formats under the budget, by what everything in four bits and in eight would do to the model.
  Status choose() {
    NIBBLE_TRY(job, plan_folder(source_, quantize_));
    std::vector<FormatGroup> groups = format_groups(job.plan);
    NIBBLE_TRY(bytes, budget_bytes(job.plan, groups, budget_));
    NIBBLE_RETURN_IF_ERROR(score(job.plan, groups));
    NIBBLE_TRY(choice, choose_formats(std::move(groups), bytes));
    const auto with_a4 = std::find_if(job.plan.tensors.begin(), job.plan.tensors.end(),
                                      [](const PlannedTensor& tensor) { return tensor.inputs == Inputs::a4; });
    quantize_.formats = plan_formats(choice, with_a4 == job.plan.tensors.end() ? Inputs::a16 : Inputs::a4);
    result_.formats = quantize_.formats;
    result_.mixed = std::move(choice);
    return {};
  }

  Status score(const Plan& plan, std::vector<FormatGroup>& groups) {
    const Path file = output_.work() / kScoresFile;
    if (is_there(file)) {
      NIBBLE_TRY(json, read_json(file));
      for (FormatGroup& group : groups) {
        const Json* scores = json.is_object() ? find_value(json, group.name.c_str()) : nullptr;
        if (scores == nullptr || !is_numbers(*scores, std::size(kMeasured))) return damaged(file);
        group.scores = scores->get<std::vector<double>>();
      }
      return {};
    }
    // Four bits as they will be rounded, but for transforms, which change more than one group.
    Recipe recipe = quantize_.recipe;
    recipe.transform = Transform::none;
    if (recipe.rounding == Rounding::signround) {  // its ranking of the groups at a tenth of the time
      recipe.rounding = Rounding::gptq;
      recipe.act_order = true;
    }
    if (rounds_inputs(plan)) NIBBLE_RETURN_IF_ERROR(find_input_amax());
    const Path work = output_.work() / "uniform";
    std::error_code error;
    std::filesystem::create_directory(work, error);
    if (error) return io("create folder: {} ({})", error.message(), work.string());
    NIBBLE_RETURN_IF_ERROR(solve(plan, recipe, work, "solve in four bits"));
    SolvedLayers solved(work, weights_);
    NIBBLE_RETURN_IF_ERROR(measure_sensitivity(
        cx_, weights_, sample(), options_.sensitivity, kMeasured,
        [&](const std::string& module, Format format) { return in_format(solved, module, format); }, groups,
        progress("sensitivity")));
    Json json = Json::object();
    for (const FormatGroup& group : groups) json[group.name] = group.scores;
    return write_file(file, json.dump());
  }

  std::span<const std::vector<int32_t>> sample() const {
    if (options_.sensitivity == Sensitivity::gradient) return chats_;
    return chats_.first(std::min(chats_.size(), static_cast<size_t>(options_.sensitivity_chats)));
  }

  Result<ops::Linear> in_format(SolvedLayers& solved, const std::string& module, Format format) {
    if (format == Format::nvfp4) {
      NIBBLE_TRY(of, solved.linear(module));
      NIBBLE_CHECK(of != nullptr);
      ops::Linear linear = of->solved.linear;
      linear.inputs = ops::InputRounding::none;
      return linear;
    }
    ops::Linear source;
    weights_.for_each_linear([&](std::string_view name, ops::Linear& linear) {
      if (name == module) source = linear;
    });
    ops::Linear linear;
    linear.format = ops::WeightFormat::fp8;
    linear.out = source.out, linear.in = source.in;
    fp8_ = OwnedTensor(DType::f8e4m3, {source.out, source.in});
    linear.weight = fp8_.view;
    linear.tensor_scale = fp8_scale(ops::tensor_amax(cx_, source.weight).amax);
    ops::fp8_quantize(cx_, source.weight, linear.tensor_scale, linear.weight);
    return linear;
  }

  Status take_losses(const Plan& plan, SolvedLayers& solved) {
    for (const PlannedTensor& tensor : plan.tensors) {
      if (!tensor.quantized()) continue;
      NIBBLE_TRY(of, solved.linear(tensor.module));
      if (of == nullptr) continue;
      if (of->loss > 0) result_.losses[tensor.module] = of->loss;
      if (!of->note.empty()) result_.notes[tensor.module] = of->note;
    }
    return {};
  }

  void hook(SolvedLayers& solved) {
    quantize_.solved = [&](const std::string& module) -> Result<std::optional<SolvedLinear>> {
      NIBBLE_TRY(of, solved.linear(module));
      return of == nullptr ? std::nullopt : std::optional<SolvedLinear>(of->solved);
    };
    const auto behind = options_.quantize.replace;
    quantize_.replace = [&, behind](const TensorInfo& info) -> Result<Tensor> {
      NIBBLE_TRY(tensor, solved.tensor(info.name));
      if (tensor == nullptr) return behind ? behind(info) : Result<Tensor>(Tensor());
      return in_type(*tensor, *info.type);
    };
  }

  /// A changed tensor in the type of the file.
  Tensor in_type(const Tensor& tensor, DType type) {
    if (tensor.dtype() == type) return tensor;
    NIBBLE_CHECK(tensor.dtype() == DType::f32 && type == DType::f16);
    replaced_ = OwnedTensor(type, tensor.shape());
    auto* to = static_cast<uint16_t*>(replaced_.view.raw());
    for (int64_t i = 0; i < tensor.elements(); ++i) to[i] = f32_to_f16(tensor.f32()[i]);
    return replaced_.view;
  }

  Context& cx_;
  const Path& source_;
  PartialFolder& output_;
  model::Weights& weights_;
  std::span<const std::vector<int32_t>> chats_;
  const CalibratedOptions& options_;
  QuantizeOptions quantize_;
  Budget budget_ = effective_budget(options_);
  CalibratedReport result_;
  OwnedTensor fp8_, replaced_;

  static Budget effective_budget(const CalibratedOptions& options) {
    Budget budget = options.budget;
    if (!budget.set()) budget.effective_bits = options.quantize.recipe.effective_bits;
    return budget;
  }
};

}  // namespace

bool needs_data(const Recipe& recipe, const Budget& budget) {
  return budget.set() || recipe.needs_calibration() || needs_layerwise(recipe);
}

Result<CalibratedReport> quantize_with_data(Context& cx, const Path& source, PartialFolder& output,
                                            model::Weights& weights, std::span<const std::vector<int32_t>> chats,
                                            const CalibratedOptions& options) {
  return CalibratedJob(cx, source, output, weights, chats, options).run();
}

}  // namespace nibble::quantize
