#include "train/export.h"

#include <cstring>
#include <set>
#include <unordered_map>

#include "checkpoint/adapter_writer.h"
#include "text/prompt_lock.h"

namespace nibble::train {
namespace {

// The codes that were written are those that the student's forward read.
Status check_codes(const Path& folder, const Student& student) {
  NIBBLE_TRY(files, SafetensorsFolder::open(folder));
  for (const QuantizedLinear& q : student.quantized()) {
    const auto same = [&](std::string_view suffix, const Tensor& expected) {
      const SafetensorsFolder::Entry* entry = files.find(q.module + std::string(suffix));
      return entry != nullptr && entry->info->bytes == expected.bytes() &&
             std::memcmp(entry->file->bytes(*entry->info).data(), expected.raw(), expected.bytes()) == 0;
    };
    if (!same(".weight", q.linear->weight) || !same(".weight_scale", q.linear->block_scale)) {
      return corrupt("export: {}: expected the codes of the last training step, got others", q.module)
          .with_hint("this is a defect of nibble: please report it");
    }
  }
  return {};
}

}  // namespace

Status Exporter::write(const Student& student, const Path& output) const {
  std::unordered_map<std::string, Tensor> stored;
  for (StoredTensor& tensor : student.stored()) stored.emplace(std::move(tensor.name), tensor.values);
  std::unordered_map<std::string, const ops::Linear*> quantized;
  quantize::QuantizeOptions options;
  for (const QuantizedLinear& q : student.quantized()) quantized.emplace(q.module, q.linear);
  options.quantize = student.options().quantize;
  options.exclude = student.options().exclude;
  options.input_amax = student.options().input_amax;
  if (!options.input_amax.empty()) {
    options.recipe = quantize::uniform_recipe(quantize::Scales::max, quantize::Inputs::a4);
  }
  options.replace = [&](const TensorInfo& info) -> Result<Tensor> {
    const auto found = stored.find(info.name);
    return found == stored.end() ? Tensor() : found->second;
  };
  options.scales = [&](const std::string& module) -> const ops::Linear* {
    const auto found = quantized.find(module);
    return found == quantized.end() ? nullptr : found->second;
  };

  const Path fresh = output.string() + ".new";
  std::error_code error;
  std::filesystem::remove_all(fresh, error);
  NIBBLE_RETURN_IF_ERROR(quantize::quantize_folder(options_.source, fresh, options, pool_).status());
  NIBBLE_RETURN_IF_ERROR(check_codes(fresh, student));
  NIBBLE_RETURN_IF_ERROR(write_file(fresh / text::kTrainingFile, options_.manifest));
  return replace_folder(fresh, output);
}

Status Exporter::write_adapter(const Student& student, const Path& output) const {
  checkpoint::AdapterSettings settings;
  settings.rank = student.options().lora.rank;
  settings.alpha = student.lora_scale() * static_cast<double>(settings.rank);
  settings.base_model = options_.source.string();
  std::set<std::string> targets;
  std::vector<OwnedTensor> transposed;
  std::vector<checkpoint::AdapterTensors> tensors;
  for (const LoraPair& pair : student.adapters()) {
    targets.insert(pair.module.substr(pair.module.rfind('.') + 1));
    const int64_t in = pair.a.dim(0), r = pair.a.dim(1);
    const OwnedTensor& a = transposed.emplace_back(DType::f32, Shape{r, in});
    for (int64_t k = 0; k < in; ++k) {
      for (int64_t j = 0; j < r; ++j) a.view.f32()[j * in + k] = pair.a.f32()[k * r + j];
    }
    tensors.push_back({pair.module, a.view, pair.b});
  }
  settings.target_modules.assign(targets.begin(), targets.end());
  const Path fresh = output.string() + ".new";
  std::error_code error;
  std::filesystem::remove_all(fresh, error);
  NIBBLE_RETURN_IF_ERROR(checkpoint::write_adapter(fresh, settings, tensors));
  return replace_folder(fresh, output);
}

}  // namespace nibble::train
