#include "checkpoint/tensor_source.h"

#include <atomic>
#include <cmath>
#include <cstring>

#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr int64_t kBlock = 16;
constexpr std::string_view kFloats = "bf16, f16 or f32";

std::string file_of(const SafetensorsFolder::Entry& entry) {
  return entry.file->mapping().path().filename().string();
}

/// "[12288,4096] bf16", with our spelling of types we know.
std::string describe(const TensorInfo& info) {
  return fmt::format("[{}] {}", fmt::join(info.shape, ","), info.type ? name(*info.type) : info.dtype);
}

bool has_shape(const TensorInfo& info, const Shape& shape) {
  if (info.shape.size() != static_cast<size_t>(shape.rank())) return false;
  for (int i = 0; i < shape.rank(); ++i) {
    if (info.shape[static_cast<size_t>(i)] != shape[i]) return false;
  }
  return true;
}

bool is_float(std::optional<DType> type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16;
}

// Files promise no alignment, so elements are read by memcpy.
template <class T>
T element(const void* base, int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(base) + static_cast<size_t>(i) * sizeof(T), sizeof(T));
  return value;
}

float float_at(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::bf16:
      return bf16_to_f32(element<uint16_t>(t.raw(), i));
    case DType::f16:
      return f16_to_f32(element<uint16_t>(t.raw(), i));
    default:
      return element<float>(t.raw(), i);
  }
}

/// True when an exponent of all ones, NaN or infinity, is among n elements.
template <class T>
bool any_special(const void* base, int64_t n, T exponent) {
  unsigned found = 0;
  for (int64_t i = 0; i < n; ++i) found |= (element<T>(base, i) & exponent) == exponent;
  return found != 0;
}

bool any_special(const Tensor& rows) {
  switch (rows.dtype()) {
    case DType::bf16:
      return any_special<uint16_t>(rows.raw(), rows.elements(), 0x7F80);
    case DType::f16:
      return any_special<uint16_t>(rows.raw(), rows.elements(), 0x7C00);
    default:
      return any_special<uint32_t>(rows.raw(), rows.elements(), 0x7F800000);
  }
}

/// Lowers `first` to `value` if that is smaller.
void take_minimum(std::atomic<int64_t>& first, int64_t value) {
  int64_t seen = first.load();
  while (value < seen && !first.compare_exchange_weak(seen, value)) {
  }
}

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
    : files_(files), quantization_(quantization), options_(options), weights_(weights) {
  for (const Entry& entry : files.tensors()) {
    if (model::part_of(entry.info->name) == model::Part::text) total_bytes_ += entry.info->bytes;
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

Status TensorSource::over_rows(const Entry& entry, const Tensor& tensor,
                               const std::function<void(int64_t, int64_t)>& body) {
  constexpr int64_t kGrainBytes = 4 << 20;
  const int64_t rows = tensor.dim(0);
  const auto row_bytes = static_cast<int64_t>(tensor.bytes() / static_cast<size_t>(rows));
  const int64_t grain = std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, row_bytes));
  const auto ranges = [&](int64_t begin, int64_t end) {
    if (!options_.cancel.cancelled()) body(begin, end);
  };
  if (options_.pool != nullptr) {
    options_.pool->parallel_for(rows, grain, ranges);
  } else {
    for (int64_t r = 0; r < rows; r += grain) ranges(r, std::min(rows, r + grain));
  }
  if (options_.cancel.cancelled()) return cancelled("loading: stopped at {}", entry.info->name);
  done_bytes_ += tensor.bytes();
  report(options_.progress, done_bytes_, total_bytes_, entry.info->name);
  return {};
}

Status TensorSource::check_finite(const Entry& entry, const Tensor& matrix) {
  std::atomic<int64_t> first{INT64_MAX};
  NIBBLE_RETURN_IF_ERROR(over_rows(entry, matrix, [&](int64_t begin, int64_t end) {
    const Tensor rows = matrix.rows(begin, end);
    if (!any_special(rows)) return;
    for (int64_t i = 0; i < rows.elements(); ++i) {
      if (!std::isfinite(float_at(rows, i)))
        return take_minimum(first, begin * (matrix.elements() / matrix.dim(0)) + i);
    }
  }));
  if (first == INT64_MAX) return {};
  const int64_t columns = matrix.elements() / matrix.dim(0);
  return corrupt("weight not finite: {}[{},{}]: expected a number, got {} ({})", entry.info->name, first / columns,
                 first % columns, float_at(matrix, first), file_of(entry))
      .with_hint("the model is broken: nothing computed with this weight would be a number");
}

Status TensorSource::check_scales(const Entry& entry, const Tensor& scales) {
  std::atomic<int64_t> first{INT64_MAX};
  NIBBLE_RETURN_IF_ERROR(over_rows(entry, scales, [&](int64_t begin, int64_t end) {
    const uint8_t* bytes = scales.u8();
    const int64_t columns = scales.dim(1);
    unsigned bad = 0;
    for (int64_t i = begin * columns; i < end * columns; ++i) bad |= bytes[i] > kE4m3MaxByte;
    for (int64_t i = begin * columns; bad != 0 && i < end * columns; ++i) {
      if (bytes[i] > kE4m3MaxByte) return take_minimum(first, i);
    }
  }));
  if (first == INT64_MAX) return {};
  return corrupt("{}[{},{}]: expected a scale byte in 0x00..0x7E, got 0x{:02X} ({})", entry.info->name,
                 first / scales.dim(1), first % scales.dim(1), scales.u8()[first], file_of(entry))
      .with_hint("the block scale is NaN or negative: quantize the model again");
}

Result<Tensor> TensorSource::matrix(const Entry& entry, const Shape& shape) {
  NIBBLE_TRY(tensor, entry.file->tensor(*entry.info));
  Tensor view = Tensor::constant(tensor.raw(), tensor.dtype(), shape);
  if (options_.check_values) NIBBLE_RETURN_IF_ERROR(check_finite(entry, view));
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

Status TensorSource::load_dense(const std::string& module, ops::Linear& linear, int64_t out, int64_t in) {
  const Shape shape{out, in};
  NIBBLE_TRY(entry, require(module + ".weight", shape, kFloats));
  if (entry.info->type == DType::f8e4m3) {
    return unsupported("{}: expected {} {} or nvfp4, got fp8 ({})", entry.info->name, shape.text(), kFloats,
                       file_of(entry))
        .with_hint("quantize the BF16 model with nibble instead");
  }
  if (!is_float(entry.info->type) || !has_shape(*entry.info, shape)) return mismatch(entry, shape, kFloats);
  if (quantization_.quantized() && !quantization_.excludes(module)) {
    return corrupt("{}: expected {} as quantization_config says, got {} ({})", entry.info->name, quantization_.algo,
                   describe(*entry.info), file_of(entry))
        .with_hint("list the module under \"ignore\" in config.json if it was left in full precision on purpose");
  }
  NIBBLE_TRY(view, matrix(entry, shape));
  linear = model::dense_linear(view);
  return {};
}

Result<float> TensorSource::load_scale(const std::string& name) {
  NIBBLE_TRY(entry, require(name, {}, "f32"));
  const bool scalar = has_shape(*entry.info, {}) || has_shape(*entry.info, {1});
  if (entry.info->type != DType::f32 || !scalar) return mismatch(entry, {}, "f32");
  const auto value = element<float>(entry.file->bytes(*entry.info).data(), 0);
  if (!std::isfinite(value) || !(value > 0)) {
    return corrupt("{}: expected a positive number, got {} ({})", name, value, file_of(entry))
        .with_hint("quantize the model again");
  }
  return value;
}

Status TensorSource::load_nvfp4(const std::string& module, ops::Linear& linear, int64_t out, int64_t in) {
  const Shape code_shape{out, in / 2}, scale_shape{out, in / kBlock};
  NIBBLE_TRY(codes, require(module + ".weight", code_shape, "u8"));
  if (!quantization_.quantized() || quantization_.excludes(module)) {
    return corrupt("{}: expected {} {}{}, got {} ({})", codes.info->name, Shape{out, in}.text(), kFloats,
                   quantization_.quantized() ? " as the list of excluded modules says" : "", describe(*codes.info),
                   file_of(codes))
        .with_hint("the weights are quantized, and config.json does not say so");
  }
  if (in % kBlock != 0 || !has_shape(*codes.info, code_shape)) return mismatch(codes, code_shape, "u8");
  NIBBLE_TRY(scales, require(module + ".weight_scale", scale_shape, "f8e4m3"));
  if (scales.info->type != DType::f8e4m3 || !has_shape(*scales.info, scale_shape)) {
    return mismatch(scales, scale_shape, "f8e4m3");
  }
  NIBBLE_TRY(tensor_scale, load_scale(module + ".weight_scale_2"));
  const std::string input_name = module + ".input_scale";
  float input_scale = 0;
  if (quantization_.rounds_inputs()) {
    NIBBLE_TRY(value, load_scale(input_name));
    input_scale = value;
  } else if (const Entry* unused = files_.find(input_name)) {
    used_.insert(unused->info->name);  // weights only: other readers drop it too
  }
  NIBBLE_TRY(code_tensor, codes.file->tensor(*codes.info));
  NIBBLE_TRY(scale_tensor, scales.file->tensor(*scales.info));
  if (options_.check_values) NIBBLE_RETURN_IF_ERROR(check_scales(scales, scale_tensor));
  linear = {.format = ops::WeightFormat::nvfp4,
            .out = out,
            .in = in,
            .weight = code_tensor,
            .block_scale = scale_tensor,
            .tensor_scale = tensor_scale,
            .inputs = input_scale > 0 ? ops::InputRounding::nvfp4 : ops::InputRounding::none,
            .input_scale = input_scale};
  return {};
}

void TensorSource::linear(const std::string& name, ops::Linear& linear, int64_t out, int64_t in) {
  if (!status_.ok()) return;
  const Entry* weight = files_.find(name + ".weight");
  const bool packed = weight != nullptr && weight->info->type == DType::u8;
  set_error(packed ? load_nvfp4(name, linear, out, in) : load_dense(name, linear, out, in));
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
