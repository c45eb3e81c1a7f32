// TensorSource: the tensors of a quantized module, in the names of either layout.
//
//                  ModelOpt                          compressed-tensors
//   NVFP4 codes    .weight U8 [N,K/2]                .weight_packed U8 [N,K/2]
//   block scales   .weight_scale F8_E4M3 [N,K/16]    the same
//   tensor scale   .weight_scale_2 F32 []            .weight_global_scale F32 [1], which divides
//   input scale    .input_scale F32 []               .input_global_scale F32 [1], which divides
//   FP8            .weight F8_E4M3 [N,K]             the same
//   its scales     .weight_scale [] or [N] or [N,1]  the same, F32 or BF16, and [1]
//   input scale    .input_scale F32 []               .input_scale, F32 or BF16, [1]
//   AWQ            .pre_quant_scale [K], multiplies  none
#include <algorithm>
#include <cmath>

#include "checkpoint/tensor_entry.h"
#include "checkpoint/tensor_source.h"
#include "ops/quant/nvfp4.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kRequantize = "quantize the model again";

bool is_scalar(const TensorInfo& info) {
  return has_shape(info, {}) || has_shape(info, {1});
}

}  // namespace

Status TensorSource::check_bytes(const Entry& entry, const Tensor& matrix, bool (*bad)(uint8_t),
                                 std::string_view expected) {
  std::atomic<int64_t> first{INT64_MAX};
  const int64_t columns = matrix.dim(1);
  NIBBLE_RETURN_IF_ERROR(
      work_.over_rows(entry.info->name, matrix.dim(0), matrix.bytes(), [&](int64_t begin, int64_t end) {
        const uint8_t* bytes = matrix.u8();
        unsigned any = 0;
        for (int64_t i = begin * columns; i < end * columns; ++i) any |= bad(bytes[i]);
        for (int64_t i = begin * columns; any != 0 && i < end * columns; ++i) {
          if (bad(bytes[i])) return take_minimum(first, i);
        }
      }));
  if (first == INT64_MAX) return {};
  return corrupt("{}[{},{}]: expected {}, got 0x{:02X} ({})", entry.info->name, first / columns, first % columns,
                 expected, matrix.u8()[first], file_of(entry))
      .with_hint(std::string("the number is NaN or negative: ") + kRequantize);
}

void TensorSource::use_if_there(const std::string& name) {
  if (const Entry* entry = files_.find(name)) used_.insert(entry->info->name);
}

/// A module that the config calls quantized, and whose tensors are something else.
Status TensorSource::claimed(const std::string& module, const StoredFormat& format, const Entry& found) const {
  const bool compressed = quantization_.layout == Layout::compressed_tensors;
  return corrupt("{}.weight: expected {} as quantization_config says, got {} ({})", module, format.algo,
                 describe(*found.info), file_of(found))
      .with_hint(quantization_.layers.empty() || compressed
                     ? "list the module under \"ignore\" in config.json if it was left in full precision on purpose"
                     : "take the module out of \"quantized_layers\" if it was left in full precision on purpose");
}

Status TensorSource::load_quantized(const std::string& module, const StoredFormat& format, ops::Linear& linear,
                                    int64_t out, int64_t in) {
  linear = ops::Linear();
  linear.out = out;
  linear.in = in;
  return format.format == Format::nvfp4 ? load_nvfp4(module, format, linear) : load_fp8(module, format, linear);
}

Result<float> TensorSource::load_scale(const std::string& name, bool divides) {
  const bool compressed = quantization_.layout == Layout::compressed_tensors;
  const Shape shape = compressed ? Shape{1} : Shape{};
  NIBBLE_TRY(entry, require(name, shape, "f32"));
  const bool half = compressed && !divides && entry.info->type == DType::bf16;
  if (!(half || entry.info->type == DType::f32) || !is_scalar(*entry.info)) return mismatch(entry, shape, "f32");
  if (divides && !has_shape(*entry.info, shape)) {
    return mismatch(entry, shape, "f32")
        .with_hint("store the scale as [1]: from a scalar compressed-tensors computes block scales in bf16");
  }
  NIBBLE_TRY(tensor, entry.file->tensor(*entry.info));
  const float value = float_at(tensor, 0), factor = divides ? div_rn(1, value) : value;
  if (!std::isfinite(value) || !(value > 0) || !std::isfinite(factor) || !(factor > 0)) {
    return corrupt("{}: expected a positive number, got {} ({})", name, value, file_of(entry)).with_hint(kRequantize);
  }
  return factor;
}

Status TensorSource::load_input_scale(const std::string& module, const StoredFormat& format, ops::Linear& linear) {
  const bool fp8 = linear.format == ops::WeightFormat::fp8;
  const bool divides = quantization_.layout == Layout::compressed_tensors && !fp8;
  const std::string name = module + (divides ? ".input_global_scale" : ".input_scale");
  const bool there = files_.find(name) != nullptr;
  // Of weights that are quantized alone other readers drop it too.
  if (format.inputs == Inputs::a16) return use_if_there(name), Status();
  if (!there && format.inputs_optional) return {};
  NIBBLE_TRY(scale, load_scale(name, divides));
  linear.input_scale = scale;
  linear.inputs = fp8 ? ops::InputRounding::fp8 : ops::InputRounding::nvfp4;
  return {};
}

Status TensorSource::load_nvfp4(const std::string& module, const StoredFormat& format, ops::Linear& linear) {
  const bool compressed = quantization_.layout == Layout::compressed_tensors;
  const Shape code_shape{linear.out, linear.in / 2}, scale_shape{linear.out, linear.in / kNvfp4Block};
  if (const Entry* dense = files_.find(module + ".weight"); dense != nullptr && dense->info->type != DType::u8) {
    return claimed(module, format, *dense);
  }
  NIBBLE_TRY(codes, require(module + (compressed ? ".weight_packed" : ".weight"), code_shape, "u8"));
  if (linear.in % kNvfp4Block != 0 || codes.info->type != DType::u8 || !has_shape(*codes.info, code_shape)) {
    return mismatch(codes, code_shape, "u8");
  }
  NIBBLE_TRY(scales, require(module + ".weight_scale", scale_shape, "f8e4m3"));
  if (scales.info->type != DType::f8e4m3 || !has_shape(*scales.info, scale_shape)) {
    return mismatch(scales, scale_shape, "f8e4m3");
  }
  const std::string scale_name = module + (compressed ? ".weight_global_scale" : ".weight_scale_2");
  NIBBLE_TRY(tensor_scale, load_scale(scale_name, compressed));
  if (compressed && tensor_scale > 1) {
    return corrupt("{}: expected 2688 over the largest weight, got {}", scale_name, 1 / tensor_scale)
        .with_hint("the number divides in this layout, and this one seems meant to multiply");
  }
  NIBBLE_TRY(code_tensor, codes.file->tensor(*codes.info));
  NIBBLE_TRY(scale_tensor, scales.file->tensor(*scales.info));
  if (options_.check_values) {
    NIBBLE_RETURN_IF_ERROR(check_bytes(
        scales, scale_tensor, [](uint8_t byte) { return byte > kE4m3MaxByte; }, "a scale byte in 0x00..0x7E"));
  }
  linear.format = ops::WeightFormat::nvfp4;
  linear.weight = code_tensor;
  linear.block_scale = scale_tensor;
  linear.tensor_scale = tensor_scale;
  if (compressed) {
    for (const char* unused : {".weight_zero_point", ".weight_shape"}) use_if_there(module + unused);
  }
  NIBBLE_RETURN_IF_ERROR(load_input_scale(module, format, linear));
  if (format.input_factors) NIBBLE_RETURN_IF_ERROR(apply_input_factors(module, linear));
  return format.low_rank ? load_low_rank(module, linear) : Status();
}

/// y = W (f * x) with a factor f per input, where the module has them. The product f * W is taken in f32 and its
/// inputs stay as they are: what the exporter rounded is f * x, and no Linear holds f.
Status TensorSource::apply_input_factors(const std::string& module, ops::Linear& linear) {
  const std::string name = module + ".pre_quant_scale";
  if (files_.find(name) == nullptr) return {};
  NIBBLE_TRY(entry, require(name, {linear.in}, kFloats));
  if (!is_float(entry.info->type) || !has_shape(*entry.info, {linear.in})) return mismatch(entry, {linear.in}, kFloats);
  NIBBLE_TRY(factors, entry.file->tensor(*entry.info));
  const Shape shape{linear.out, linear.in};
  ops::Linear dense;
  dense.out = linear.out;
  dense.in = linear.in;
  if (!options_.widen_f16) {
    dense.weight = Tensor(nullptr, DType::f32, shape);
    linear = dense;
    return {};
  }
  dense.weight = weights_.own(Buffer::for_tensor(DType::f32, shape)).tensor(DType::f32, shape);
  std::optional<ThreadPool> alone;
  Context cx(options_.pool != nullptr ? *options_.pool : alone.emplace(1));
  ops::nvfp4_dequantize(cx, linear.weight, linear.block_scale, linear.tensor_scale, dense.weight);
  for (int64_t k = 0; k < linear.in; ++k) {
    const float factor = float_at(factors, k);
    if (!std::isfinite(factor)) {
      return corrupt("{}[{}]: expected a number, got {} ({})", name, k, factor, file_of(entry)).with_hint(kRequantize);
    }
    for (int64_t n = 0; n < linear.out; ++n) dense.weight.f32()[n * linear.in + k] *= factor;
  }
  linear = dense;
  return {};
}

Result<Tensor> TensorSource::load_factor(const std::string& name, const Shape& shape) {
  NIBBLE_TRY(entry, require(name, shape, "bf16"));
  if (entry.info->type != DType::bf16 || !has_shape(*entry.info, shape)) return mismatch(entry, shape, "bf16");
  return matrix(entry, shape);
}

Status TensorSource::load_low_rank(const std::string& module, ops::Linear& linear) {
  const std::string a_name = module + ".svdquant_lora_a";
  const Entry* a = files_.find(a_name);
  if (a == nullptr) {
    return unsupported("{}: expected the low-rank factors of NVFP4_SVD, got no such tensor", a_name)
        .with_hint(
            "ModelOpt's exporter leaves them out, and without them the weights are only a remainder: quantize the BF16 "
            "model with `nibble quantize --strategy svdquant`");
  }
  const int64_t rank = a->info->shape.empty() ? 0 : a->info->shape[0];
  if (rank < 1 || rank > std::min(linear.out, linear.in)) return mismatch(*a, {1, linear.in}, "bf16");
  NIBBLE_TRY(lora_a, load_factor(a_name, {rank, linear.in}));
  NIBBLE_TRY(lora_b, load_factor(module + ".svdquant_lora_b", {linear.out, rank}));
  linear.low_rank_a = lora_a;
  linear.low_rank_b = lora_b;
  return {};
}

Result<Tensor> TensorSource::load_factors(const std::string& name, int64_t out) {
  const Shape shape = out == 1 ? Shape{} : Shape{out};
  NIBBLE_TRY(entry, require(name, shape, "f32"));
  const TensorInfo& info = *entry.info;
  const bool fits = out == 1 ? is_scalar(info) : has_shape(info, {out}) || has_shape(info, {out, 1});
  if (!(info.type == DType::f32 || info.type == DType::bf16) || !fits) return mismatch(entry, shape, "f32");
  NIBBLE_TRY(source, entry.file->tensor(info));
  const Tensor factors = weights_.own(Buffer::for_tensor(DType::f32, {out})).tensor(DType::f32, {out});
  for (int64_t i = 0; i < out; ++i) {
    const float value = float_at(source, i);
    if (!std::isfinite(value) || !(value > 0)) {
      return corrupt("{}[{}]: expected a positive number, got {} ({})", name, i, value, file_of(entry))
          .with_hint(kRequantize);
    }
    factors.f32()[i] = value;
  }
  return factors;
}

Status TensorSource::load_fp8(const std::string& module, const StoredFormat& format, ops::Linear& linear) {
  const Shape shape{linear.out, linear.in};
  NIBBLE_TRY(entry, require(module + ".weight", shape, "f8e4m3"));
  if (is_float(entry.info->type)) return claimed(module, format, entry);
  if (entry.info->type != DType::f8e4m3 || !has_shape(*entry.info, shape)) return mismatch(entry, shape, "f8e4m3");
  NIBBLE_TRY(bytes, entry.file->tensor(*entry.info));
  if (options_.check_values) {
    NIBBLE_RETURN_IF_ERROR(check_bytes(
        entry, bytes, [](uint8_t byte) { return (byte & 0x7F) == kE4m3Nan; }, "an E4M3 number"));
  }
  linear.format = ops::WeightFormat::fp8;
  linear.weight = bytes;
  const bool by_channel = format.format == Format::fp8_channel;
  NIBBLE_TRY(factors, load_factors(module + ".weight_scale", by_channel ? linear.out : 1));
  if (by_channel) {
    linear.channel_scale = factors;
  } else {
    linear.tensor_scale = *factors.f32();
  }
  if (quantization_.layout == Layout::compressed_tensors) use_if_there(module + ".weight_zero_point");
  return load_input_scale(module, format, linear);
}

}  // namespace nibble::checkpoint
