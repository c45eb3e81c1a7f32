#include "quantize/write_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "checkpoint/linear_layout.h"
#include "ops/quant/fp8.h"

namespace nibble::quantize {
namespace {

constexpr uint64_t kCopyBytes = uint64_t{64} << 20;  // a multiple of every element size

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

ops::WeightFormat weight_format(Format format) {
  return format == Format::nvfp4 ? ops::WeightFormat::nvfp4 : ops::WeightFormat::fp8;
}

}  // namespace

// A linear and the memory of its parts.
struct TensorWriter::Encoded {
  OwnedTensor codes, scales;
  ops::Linear linear;
  ops::Nvfp4Stats stats;
};

TensorWriter::TensorWriter(const Job& job, const QuantizeOptions& options, TensorRecords* records, ThreadPool& pool)
    : job_(job),
      options_(options),
      records_(records),
      strategy_(data_free_strategy(options.recipe.scales)),
      cx_(pool),
      groups_(static_cast<size_t>(job.plan.groups)),
      measured_(job.plan.tensors.size()) {
  for (const PlannedTensor& tensor : job.plan.tensors) total_ += tensor.source->bytes * (tensor.quantized() ? 2 : 1);
}

Status TensorWriter::write(const Path& folder) {
  using Existing = ShardedSafetensorsWriter::Existing;
  NIBBLE_RETURN_IF_ERROR(find_input_scales());  // a missing entry is found before any weight is read
  std::vector<TensorDeclaration> declarations;
  for (const PlannedTensor& tensor : job_.plan.tensors) {
    for (TensorDeclaration& one : declare(tensor)) declarations.push_back(std::move(one));
  }
  NIBBLE_TRY(writer, ShardedSafetensorsWriter::create(folder, std::move(declarations),
                                                      {{"format", "pt"}, {"quantized_by", "nibble " NIBBLE_VERSION}},
                                                      options_.shard_bytes,
                                                      records_ != nullptr ? Existing::keep : Existing::replace));
  for (const PlannedTensor& tensor : job_.plan.tensors) {
    if (skips(tensor, writer)) {
      for (const TensorDeclaration& one : declare(tensor)) NIBBLE_RETURN_IF_ERROR(writer.skip(one.name));
      NIBBLE_RETURN_IF_ERROR(advance(tensor, tensor.source->bytes));
      continue;
    }
    NIBBLE_RETURN_IF_ERROR(tensor.quantized() ? write_quantized(tensor, writer) : write_copy(tensor, writer));
  }
  return writer.commit();
}

const Safetensors& TensorWriter::file_of(const PlannedTensor& tensor) const {
  return *job_.weights.find(tensor.source->name)->file;
}

checkpoint::QuantizedModule TensorWriter::module_of(const PlannedTensor& tensor) const {
  return {tensor.module, tensor.format, tensor.inputs, tensor.rank > 0};
}

std::vector<TensorDeclaration> TensorWriter::declare(const PlannedTensor& tensor) const {
  if (!tensor.quantized()) return {TensorDeclaration(*tensor.source)};
  return checkpoint::declare_linear(options_.layout, module_of(tensor), tensor.source->shape[0],
                                    tensor.source->shape[1], tensor.rank);
}

// What the output is made of: the replacement where there is one.
Result<Tensor> TensorWriter::values_of(const PlannedTensor& tensor) const {
  if (options_.replace) {
    NIBBLE_TRY(values, options_.replace(*tensor.source));
    if (!values.empty()) {
      NIBBLE_CHECK(values.bytes() == tensor.source->bytes);
      return values;
    }
  }
  return file_of(tensor).tensor(*tensor.source);
}

// Quantized tensors count twice: for their magnitude and for their codes.
Status TensorWriter::advance(const PlannedTensor& tensor, uint64_t bytes) {
  const auto index = static_cast<size_t>(&tensor - job_.plan.tensors.data());
  if (tensor.quantized() && !measured_[index]) {
    measured_[index] = true;
    done_ += tensor.source->bytes;
  }
  done_ += bytes;
  report(options_.progress, done_, total_, tensor.name);
  if (!options_.cancel.cancelled()) return {};
  return cancelled("quantize: stopped before the end; {}",
                   records_ != nullptr ? "the same command goes on from here" : "nothing was written");
}

Status TensorWriter::find_input_scales() {
  if (options_.solved && options_.input_amax.empty()) return {};  // then each brings its own
  NIBBLE_TRY(scales, group_input_scales(job_.plan, options_.input_amax));
  for (size_t i = 0; i < scales.size(); ++i) groups_[i].input_scale = scales[i];
  return {};
}

Result<float> TensorWriter::measure(const PlannedTensor& tensor) {
  const TensorInfo& info = *tensor.source;
  NIBBLE_TRY(w, values_of(tensor));
  const ops::TensorAmax amax = ops::tensor_amax(cx_, w);
  if (!amax.finite()) return not_finite(info, amax.row * w.dim(1) + amax.col, file_of(tensor).mapping());
  file_of(tensor).drop(info);
  if (!measured_[static_cast<size_t>(&tensor - job_.plan.tensors.data())]) {
    NIBBLE_RETURN_IF_ERROR(advance(tensor, 0));
  }
  return amax.amax;
}

Result<float> TensorWriter::group_amax(const PlannedTensor& tensor) {
  Group& group = groups_[static_cast<size_t>(tensor.group)];
  if (!group.measured) {
    for (const PlannedTensor& member : job_.plan.tensors) {
      if (member.group != tensor.group) continue;
      NIBBLE_TRY(amax, measure(member));
      group.amax = std::max(group.amax, amax);
    }
    group.measured = true;
  }
  if (options_.tie_groups) return group.amax;
  NIBBLE_TRY(w, values_of(tensor));
  return ops::tensor_amax(cx_, w).amax;
}

// All parts were kept, and what was done to it is known.
bool TensorWriter::skips(const PlannedTensor& tensor, const ShardedSafetensorsWriter& writer) {
  if (records_ == nullptr) return false;
  for (const TensorDeclaration& one : declare(tensor)) {
    if (!writer.kept(one.name)) return false;
  }
  if (!tensor.quantized()) return true;
  const QuantizedTensor* record = records_->find(tensor.module);
  if (record != nullptr) reports_.push_back(*record);
  return record != nullptr;
}

Status TensorWriter::write_quantized(const PlannedTensor& tensor, ShardedSafetensorsWriter& writer) {
  if (options_.solved) {
    NIBBLE_TRY(solved, options_.solved(tensor.module));
    if (solved) return append(tensor, *solved, writer);
  }
  if (tensor.rank > 0) {
    return invalid_argument("{}: expected a low-rank branch from the calibration, got none", tensor.module);
  }
  NIBBLE_TRY(encoded, tensor.format == Format::nvfp4 ? encode_nvfp4(tensor) : encode_fp8(tensor));
  file_of(tensor).drop(*tensor.source);
  return append(tensor, {encoded.linear, encoded.stats}, writer);
}

Status TensorWriter::append(const PlannedTensor& tensor, const SolvedLinear& solved, ShardedSafetensorsWriter& writer) {
  ops::Linear linear = solved.linear;
  NIBBLE_CHECK(linear.format == weight_format(tensor.format));
  NIBBLE_CHECK(linear.out == tensor.source->shape[0] && linear.in == tensor.source->shape[1]);
  NIBBLE_CHECK((tensor.format == Format::fp8_channel) == !linear.channel_scale.empty());
  NIBBLE_CHECK((linear.low_rank_a.empty() ? 0 : linear.low_rank_a.dim(0)) == tensor.rank);
  const ops::Nvfp4Stats& stats = solved.stats;
  if (stats.lost_rows > 0) {
    return corrupt("{}: row {}: expected values that survive 4 bits, got a row that becomes zero ({} such rows)",
                   tensor.source->name, stats.first_lost_row, stats.lost_rows)
        .with_hint(fmt::format("keep the tensor as it is: --exclude \"{}\"", tensor.module));
  }
  if (!(linear.input_scale > 0)) linear.input_scale = groups_[static_cast<size_t>(tensor.group)].input_scale;
  if (tensor.inputs != Inputs::a16 && !(linear.input_scale > 0)) {
    return invalid_argument("{}: expected an input scale from the calibration, got none", tensor.module);
  }
  QuantizedTensor record{tensor.module, tensor.format, linear.tensor_scale, stats};
  if (tensor.format == Format::fp8_channel) {
    const float* scales = linear.channel_scale.f32();
    record.tensor_scale = *std::max_element(scales, scales + linear.out);
  }
  // The record first: a kept tensor without one is computed again.
  if (records_ != nullptr) NIBBLE_RETURN_IF_ERROR(records_->add(record));
  NIBBLE_RETURN_IF_ERROR(checkpoint::append_linear(options_.layout, module_of(tensor), linear, writer));
  reports_.push_back(std::move(record));
  return advance(tensor, tensor.source->bytes);
}

Result<TensorWriter::Encoded> TensorWriter::encode_nvfp4(const PlannedTensor& tensor) {
  NIBBLE_TRY(amax, group_amax(tensor));
  NIBBLE_TRY(w, values_of(tensor));
  Nvfp4TensorScale scale = nvfp4_tensor_scale(amax, strategy_.range);
  const int64_t rows = w.dim(0), columns = w.dim(1);
  Encoded encoded{
      OwnedTensor(DType::u8, {rows, columns / 2}), OwnedTensor(DType::f8e4m3, {rows, columns / kNvfp4Block}), {}, {}};
  const ops::Linear* given = options_.scales ? options_.scales(tensor.module) : nullptr;
  if (given != nullptr) {
    scale.ws2 = given->tensor_scale;
    std::memcpy(encoded.scales.view.raw(), given->block_scale.raw(), encoded.scales.view.bytes());
  } else {
    strategy_.choose_scales(cx_, w, scale, encoded.scales.view);
  }
  encoded.stats = ops::nvfp4_encode(cx_, w, scale, encoded.scales.view, encoded.codes.view);
  encoded.linear.format = ops::WeightFormat::nvfp4;
  encoded.linear.out = rows;
  encoded.linear.in = columns;
  encoded.linear.weight = encoded.codes.view;
  encoded.linear.block_scale = encoded.scales.view;
  encoded.linear.tensor_scale = scale.ws2;
  return encoded;
}

// Every tensor under its own scale, also in a fused group: servers requantize the parts to their largest scale.
Result<TensorWriter::Encoded> TensorWriter::encode_fp8(const PlannedTensor& tensor) {
  NIBBLE_TRY(amax, measure(tensor));
  NIBBLE_TRY(w, values_of(tensor));
  const int64_t rows = w.dim(0), columns = w.dim(1);
  const bool channels = tensor.format == Format::fp8_channel;
  Encoded encoded{OwnedTensor(DType::f8e4m3, {rows, columns}), OwnedTensor(DType::f32, {channels ? rows : 0}), {}, {}};
  encoded.linear.format = ops::WeightFormat::fp8;
  encoded.linear.out = rows;
  encoded.linear.in = columns;
  encoded.linear.weight = encoded.codes.view;
  ops::Fp8Stats stats;
  if (channels) {
    stats = ops::fp8_quantize_channels(cx_, w, encoded.codes.view, encoded.scales.view);
    encoded.linear.channel_scale = encoded.scales.view;
  } else {
    encoded.linear.tensor_scale = fp8_scale(amax);
    stats = ops::fp8_quantize(cx_, w, encoded.linear.tensor_scale, encoded.codes.view);
  }
  encoded.stats.energy = stats.energy;
  encoded.stats.error = stats.error;
  encoded.stats.max_error = stats.max_error;
  return encoded;
}

// Byte for byte, in pieces, looking for NaN on the way: a broken norm ruins a model like a broken matrix does.
Status TensorWriter::write_copy(const PlannedTensor& tensor, ShardedSafetensorsWriter& writer) {
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
    NIBBLE_RETURN_IF_ERROR(writer.append(tensor.name, piece));
    if (mapped) mapping.drop(static_cast<size_t>(piece.data() - mapping.bytes().data()), piece.size());
    NIBBLE_RETURN_IF_ERROR(advance(tensor, piece.size()));
  }
  return {};
}

}  // namespace nibble::quantize
