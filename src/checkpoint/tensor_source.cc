#include "checkpoint/tensor_source.h"

#include <cmath>

#include "checkpoint/tensor_entry.h"
#include "model/names.h"

namespace nibble::checkpoint {
namespace {

/// What a module may be stored as in spellings that nibble does not take apart.
std::string other_spelling(const SafetensorsFolder& files, const std::string& tensor) {
  const std::string_view module = model::module_name(tensor);
  const size_t dot = module.rfind('.');
  const std::string parent(module.substr(0, dot == std::string_view::npos ? 0 : dot + 1));
  for (const char* fused : {"in_proj_qkvz.weight", "in_proj_ba.weight", "qkv_proj.weight", "gate_up_proj.weight",
                            "experts.gate_up_proj", "gate.weight"}) {
    if (files.find(parent + fused) != nullptr) return parent + fused;
  }
  const std::string packed = std::string(module) + ".weight_packed";
  return files.find(packed) != nullptr ? packed : std::string();
}

}  // namespace

TensorSource::TensorSource(const SafetensorsFolder& files, const Quantization& quantization, const LoadOptions& options,
                           model::Weights& weights)
    : files_(files), quantization_(quantization), options_(options), weights_(weights), work_(options) {
  for (const Entry& entry : files.tensors()) {
    if (model::part_of(entry.info->name) == model::Part::text) work_.expect(entry.info->bytes);
  }
}

Status TensorSource::missing(const std::string& name, const Shape& shape, std::string_view dtypes) const {
  if (const std::string other = other_spelling(files_, name); !other.empty()) {
    return unsupported("{}: expected {}, got a fused or packed layout", other, name)
        .with_hint("nibble reads the layout that transformers saves: convert the checkpoint back to it");
  }
  return corrupt("{}: expected {} {}, got no such tensor ({})", name, shape.text(), dtypes,
                 files_.files().front().mapping().path().parent_path().filename().string())
      .with_hint("the checkpoint is incomplete, or its config.json belongs to another model");
}

Status TensorSource::mismatch(const Entry& entry, const Shape& shape, std::string_view dtypes) const {
  return corrupt("{}: expected {} {}, got {} ({})", entry.info->name, shape.text(), dtypes, describe(*entry.info),
                 file_of(entry))
      .with_hint("the weights and config.json do not belong together");
}

Result<TensorSource::Entry> TensorSource::require(const std::string& name, const Shape& shape,
                                                  std::string_view dtypes) {
  const Entry* entry = files_.find(name);
  if (entry == nullptr) return missing(name, shape, dtypes);
  used_.insert(entry->info->name);
  return *entry;
}

Result<Tensor> TensorSource::matrix(const Entry& entry, const Shape& shape) {
  NIBBLE_TRY(tensor, entry.file->tensor(*entry.info));
  Tensor view = Tensor::constant(tensor.raw(), tensor.dtype(), shape);
  if (options_.check_values)
    NIBBLE_RETURN_IF_ERROR(work_.check_finite(entry.info->name, view, view.bytes(), file_of(entry)));
  if (view.dtype() != DType::f16) return view;
  if (!options_.widen_f16) return Tensor(nullptr, DType::f32, shape);
  const Tensor wide = weights_.own(Buffer::for_tensor(DType::f32, shape)).tensor(DType::f32, shape);
  for (int64_t i = 0; i < wide.elements(); ++i) wide.f32()[i] = float_at(view, i);
  return wide;
}

Tensor TensorSource::copy(const Tensor& source) {
  const Tensor out = weights_.own(Buffer(source.bytes())).tensor(source.dtype(), source.shape());
  std::memcpy(out.raw(), source.raw(), source.bytes());
  return out;
}

/// A module that no config calls quantized, and whose tensors are.
Status TensorSource::unclaimed(const std::string& module, const Entry& found, const Shape& shape) const {
  const bool excluded = quantization_.quantized() && quantization_.layout == Layout::modelopt;
  return corrupt("{}.weight: expected {} {}{}, got {} ({})", module, shape.text(), kFloats,
                 excluded ? " as the list of excluded modules says" : "", describe(*found.info), file_of(found))
      .with_hint(quantization_.layout == Layout::compressed_tensors
                     ? "no target of quantization_config matches: names in full, \"re:\" with a pattern, or \"Linear\""
                     : "the weights are quantized, and config.json does not say so");
}

Status TensorSource::load_dense(const std::string& module, ops::Linear& linear, int64_t out, int64_t in) {
  const Shape shape{out, in};
  const Entry* packed = files_.find(module + ".weight_packed");
  if (packed != nullptr && quantization_.layout == Layout::compressed_tensors) return unclaimed(module, *packed, shape);
  NIBBLE_TRY(entry, require(module + ".weight", shape, kFloats));
  if (entry.info->type == DType::u8 || entry.info->type == DType::f8e4m3) return unclaimed(module, entry, shape);
  if (!is_float(entry.info->type) || !has_shape(*entry.info, shape)) return mismatch(entry, shape, kFloats);
  NIBBLE_TRY(view, matrix(entry, shape));
  linear = model::dense_linear(view);
  return {};
}

void TensorSource::linear(const std::string& name, ops::Linear& linear, int64_t out, int64_t in) {
  if (!status_.ok()) return;
  const Result<StoredFormat> format = quantization_.format_of(name);
  if (!format.ok()) {
    set_error(format.status());
  } else {
    set_error(format->quantized() ? load_quantized(name, *format, linear, out, in) : load_dense(name, linear, out, in));
  }
}

void TensorSource::tensor(const std::string& name, Tensor& tensor, const Shape& shape, model::TensorKind kind) {
  if (!status_.ok()) return;
  const auto load = [&]() -> Status {
    NIBBLE_TRY(entry, require(name, shape, kFloats));
    if (!is_float(entry.info->type) || !has_shape(*entry.info, shape)) return mismatch(entry, shape, kFloats);
    if (kind == model::TensorKind::embedding) {
      NIBBLE_TRY(view, matrix(entry, shape));
      tensor = is_aligned(view) ? view : copy(view);  // rows of it are read element by element, unlike a Linear's
      return {};
    }
    NIBBLE_TRY(source, entry.file->tensor(*entry.info));
    const Shape memory = kind == model::TensorKind::conv ? Shape{shape[0], shape[2]} : shape;
    tensor = weights_.own(Buffer::for_tensor(DType::f32, memory)).tensor(DType::f32, memory);
    for (int64_t i = 0; i < source.elements(); ++i) {
      tensor.f32()[i] = float_at(source, i);
      if (!std::isfinite(tensor.f32()[i])) {
        return corrupt("weight not finite: {}[{}]: expected a number, got {} ({})", name, i, tensor.f32()[i],
                       file_of(entry));
      }
    }
    return {};
  };
  set_error(load());
}

Status TensorSource::finish() {
  NIBBLE_RETURN_IF_ERROR(status_);
  for (const Entry& entry : files_.tensors()) {
    const std::string& name = entry.info->name;
    if (model::part_of(name) != model::Part::text || used_.contains(name)) continue;
    // Known and not needed: a head beside a tied embedding, scales of a quantized KV cache, a recomputable table.
    const bool harmless = (weights_.tied && name.starts_with("lm_head.")) || name.ends_with(".k_scale") ||
                          name.ends_with(".v_scale") || name.ends_with("rotary_emb.inv_freq");
    if (harmless) continue;
    return unsupported("{}: expected no such tensor in a model of {} layers, got {} ({})", name, weights_.config.layers,
                       describe(*entry.info), file_of(entry))
        .with_hint(
            "config.json belongs to another model, or the checkpoint holds an extension nibble does not compute");
  }
  return {};
}

}  // namespace nibble::checkpoint
