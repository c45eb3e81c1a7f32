#include "checkpoint/adapter_writer.h"

#include <cmath>

#include "checkpoint/adapter_config.h"
#include "checkpoint/modelopt_export.h"
#include "io/safetensors_writer.h"

namespace nibble::checkpoint {
namespace {

std::string tensor_name(const AdapterTensors& tensors, char side) {
  return fmt::format("base_model.model.{}.lora_{}.weight", tensors.module, side);
}

Json config_of(const AdapterSettings& settings) {
  const bool whole = settings.alpha == std::trunc(settings.alpha);  // PEFT's own type is an integer
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"base_model_name_or_path", settings.base_model},
          {"r", settings.rank},
          {"lora_alpha", whole ? Json(static_cast<int64_t>(settings.alpha)) : Json(settings.alpha)},
          {"lora_dropout", 0.0},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"init_lora_weights", true},
          {"modules_to_save", nullptr},
          {"target_modules", settings.target_modules},
          {"use_dora", false},
          {"use_rslora", false},
          {"inference_mode", true}};
}

}  // namespace

Status write_adapter(const Path& folder, const AdapterSettings& settings, std::span<const AdapterTensors> tensors) {
  std::vector<TensorDeclaration> declarations;
  for (const AdapterTensors& t : tensors) {
    NIBBLE_CHECK(t.a.dtype() == DType::f32 && t.a.rank() == 2 && t.a.dim(0) == settings.rank);
    NIBBLE_CHECK(t.b.dtype() == DType::f32 && t.b.rank() == 2 && t.b.dim(1) == settings.rank);
    declarations.emplace_back(tensor_name(t, 'A'), DType::f32, t.a.shape());
    declarations.emplace_back(tensor_name(t, 'B'), DType::f32, t.b.shape());
  }
  NIBBLE_TRY(output, OutputFolder::create(folder));
  NIBBLE_TRY(writer, SafetensorsWriter::create(output.path() / kAdapterWeightsFile, std::move(declarations)));
  for (const AdapterTensors& t : tensors) {
    NIBBLE_RETURN_IF_ERROR(writer.append(tensor_name(t, 'A'), t.a));
    NIBBLE_RETURN_IF_ERROR(writer.append(tensor_name(t, 'B'), t.b));
  }
  NIBBLE_RETURN_IF_ERROR(writer.commit());
  NIBBLE_RETURN_IF_ERROR(write_file(output.path() / kAdapterConfigFile, config_text(config_of(settings))));
  return output.commit();
}

}  // namespace nibble::checkpoint
