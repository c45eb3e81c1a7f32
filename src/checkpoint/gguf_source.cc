#include "checkpoint/gguf_source.h"

#include <cmath>

#include "checkpoint/tensor_entry.h"

namespace nibble::checkpoint {
namespace {

constexpr std::string_view kWeight = ".weight";

/// The dtype in which a matrix can be used as it lies in the file.
std::optional<DType> native(GgmlType type) {
  if (type == GgmlType::f32) return DType::f32;
  if (type == GgmlType::bf16) return DType::bf16;
  return std::nullopt;
}

Shape shape_of(const GgufSlot& slot) {
  return {slot.shape[0], slot.shape[1]};
}

}  // namespace

GgufSource::GgufSource(const Gguf& file, const GgufConfig& config, std::vector<GgufSlot> slots, Originals originals,
                       const LoadOptions& options)
    : file_(file),
      config_(config),
      options_(options),
      slots_(std::move(slots)),
      originals_(std::move(originals)),
      work_(options) {
  for (size_t i = 0; i < slots_.size(); ++i) by_name_.emplace(slots_[i].hf.name, i);
  for (const GgufTensor& tensor : file.tensors()) work_.expect(tensor.bytes);
}

const GgufSlot& GgufSource::slot(std::string_view hf_name) const {
  const auto found = by_name_.find(hf_name);
  NIBBLE_CHECK(found != by_name_.end());
  return slots_[found->second];
}

Status GgufSource::mismatch(const GgufTensor& tensor, std::string_view expected) const {
  return corrupt("{}: expected {}, got {} ({})", gguf_shown(tensor.name), expected, tensor.text(), file_.file_name())
      .with_hint("the tensors and the metadata do not belong together");
}

Result<const GgufTensor*> GgufSource::require(const GgufSlot& slot) {
  const GgufTensor* tensor = file_.find(slot.name);
  const std::string shape = fmt::format("[{}]", fmt::join(slot.shape, ","));
  if (tensor == nullptr) {
    return corrupt("{}: expected {}, got no such tensor ({})", slot.name, shape, file_.file_name())
        .with_hint("the file is incomplete, or its metadata belong to another model");
  }
  used_.insert(tensor->name);
  if (tensor->shape != slot.shape) return mismatch(*tensor, shape);
  return tensor;
}

Result<std::optional<float>> GgufSource::factor(const GgufSlot& slot, std::string_view suffix) {
  NIBBLE_CHECK(slot.name.ends_with(kWeight));
  const std::string name = slot.name.substr(0, slot.name.size() - kWeight.size()) + std::string(suffix);
  const GgufTensor* tensor = file_.find(name);
  if (tensor == nullptr) return std::optional<float>();
  used_.insert(tensor->name);
  if (tensor->type != GgmlType::f32 || tensor->shape != std::vector<int64_t>{1}) return mismatch(*tensor, "[1] F32");
  const float value = element<float>(file_.bytes(*tensor).data(), 0);
  if (!std::isfinite(value) || !(value > 0)) {
    return corrupt("{}: expected a positive number, got {} ({})", name, value, file_.file_name());
  }
  return std::optional(value);
}

// Each row is decoded where it belongs; of columns that move, through a row of scratch.
Status GgufSource::decode(const GgufSlot& slot, const GgufTensor& tensor, const Tensor& out) {
  const int64_t columns = slot.shape[1];
  const size_t row_bytes = tensor.bytes / static_cast<uint64_t>(slot.shape[0]);
  const auto bytes = file_.bytes(tensor);
  const bool moves = slot.order == HeadOrder::columns;
  return over_rows(tensor, [&](int64_t begin, int64_t end) {
    std::vector<float> row(moves ? static_cast<size_t>(columns) : 0);
    for (int64_t r = begin; r < end; ++r) {
      const auto blocks = bytes.subspan(static_cast<size_t>(r) * row_bytes, row_bytes);
      float* to = out.f32() + (moves ? r : checkpoint_index(config_.config, slot, r)) * columns;
      ggml_decode(tensor.type, blocks, moves ? std::span(row) : std::span(to, static_cast<size_t>(columns)));
      for (int64_t c = 0; moves && c < columns; ++c) {
        to[checkpoint_index(config_.config, slot, c)] = row[static_cast<size_t>(c)];
      }
    }
  });
}

// The same for elements that stay what they are.
Status GgufSource::reorder(const GgufSlot& slot, const GgufTensor& tensor, const Tensor& out) {
  const int64_t columns = slot.shape[1];
  const size_t size = nibble::size_of(out.dtype()), row_bytes = static_cast<size_t>(columns) * size;
  const std::byte* from = file_.bytes(tensor).data();
  auto* to = static_cast<std::byte*>(out.raw());
  const bool moves = slot.order == HeadOrder::columns;
  return over_rows(tensor, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const std::byte* row = from + static_cast<size_t>(r) * row_bytes;
      if (!moves) {
        std::memcpy(to + static_cast<size_t>(checkpoint_index(config_.config, slot, r)) * row_bytes, row, row_bytes);
        continue;
      }
      for (int64_t c = 0; c < columns; c += slot.head) {
        const auto place = static_cast<size_t>(checkpoint_index(config_.config, slot, c));
        std::memcpy(to + static_cast<size_t>(r) * row_bytes + place * size, row + static_cast<size_t>(c) * size,
                    static_cast<size_t>(slot.head) * size);
      }
    }
  });
}

Result<Tensor> GgufSource::matrix(const GgufSlot& slot, const std::function<Tensor(DType, const Shape&)>& own) {
  NIBBLE_TRY(tensor, require(slot));
  if (tensor->type == GgmlType::nvfp4) {
    return unsupported("{}: expected another format than NVFP4 for an embedding, got {} ({})", slot.name,
                       tensor->text(), file_.file_name());
  }
  const auto type = native(tensor->type);
  Tensor out;
  if (type && slot.order == HeadOrder::none) {
    out = Tensor::constant(file_.bytes(*tensor).data(), *type, shape_of(slot));
  } else if (type) {
    out = own(*type, shape_of(slot));
    NIBBLE_RETURN_IF_ERROR(reorder(slot, *tensor, out));
  } else {
    out = own(DType::f32, shape_of(slot));
    NIBBLE_RETURN_IF_ERROR(decode(slot, *tensor, out));
  }
  if (options_.check_values)
    NIBBLE_RETURN_IF_ERROR(work_.check_finite(tensor->name, out, tensor->bytes, file_.file_name()));
  return out;
}

Status GgufSource::nvfp4(const GgufSlot& slot, const std::function<Tensor(DType, const Shape&)>& own,
                         ops::Linear& linear) {
  NIBBLE_TRY(tensor, require(slot));
  const int64_t rows = slot.shape[0], columns = slot.shape[1];
  if (slot.order == HeadOrder::columns && slot.head % kNvfp4Block != 0) {
    return unsupported("{}: expected value heads of a multiple of {} columns for NVFP4, got {} ({})", slot.name,
                       kNvfp4Block, slot.head, file_.file_name());
  }
  linear = ops::Linear();
  linear.format = ops::WeightFormat::nvfp4;
  linear.out = rows;
  linear.in = columns;
  linear.weight = own(DType::u8, {rows, columns / 2});
  linear.block_scale = own(DType::f8e4m3, {rows, columns / kNvfp4Block});
  const auto codes_of = static_cast<size_t>(columns / 2), scales_of = static_cast<size_t>(columns / kNvfp4Block);
  const size_t row_bytes = tensor->bytes / static_cast<uint64_t>(rows);
  const auto bytes = file_.bytes(*tensor);
  const bool moves = slot.order == HeadOrder::columns;
  std::atomic<int64_t> bad{INT64_MAX};
  NIBBLE_RETURN_IF_ERROR(over_rows(*tensor, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> codes(codes_of), scales(scales_of);
    for (int64_t r = begin; r < end; ++r) {
      unpack_nvfp4(bytes.subspan(static_cast<size_t>(r) * row_bytes, row_bytes), codes, scales);
      const int64_t row = moves ? r : checkpoint_index(config_.config, slot, r);
      uint8_t* to_codes = linear.weight.u8() + row * (columns / 2);
      uint8_t* to_scales = linear.block_scale.u8() + row * (columns / kNvfp4Block);
      for (int64_t g = 0; g < columns / kNvfp4Block; ++g) {
        const int64_t at = moves ? checkpoint_index(config_.config, slot, g * kNvfp4Block) / kNvfp4Block : g;
        const uint8_t scale = scales[static_cast<size_t>(g)];
        if (scale > kE4m3MaxByte) take_minimum(bad, r * (columns / kNvfp4Block) + g);
        to_scales[at] = scale;
        std::memcpy(to_codes + at * (kNvfp4Block / 2), codes.data() + g * (kNvfp4Block / 2), kNvfp4Block / 2);
      }
    }
  }));
  if (bad != INT64_MAX) {
    return corrupt("{}: expected block scales in 0x00..0x7E, got another byte in row {} ({})", slot.name,
                   bad / (columns / kNvfp4Block), file_.file_name());
  }
  NIBBLE_TRY(scale, factor(slot, ".scale"));
  NIBBLE_TRY(input_scale, factor(slot, ".input_scale"));
  linear.tensor_scale = scale.value_or(1);
  if (input_scale) {
    linear.input_scale = *input_scale;
    linear.inputs = ops::InputRounding::nvfp4;
  }
  return {};
}

Result<GgufSource::Vector> GgufSource::vector(const GgufSlot& slot) {
  NIBBLE_TRY(tensor, require(slot));
  if (tensor->type != GgmlType::f32 && tensor->type != GgmlType::f16 && tensor->type != GgmlType::bf16) {
    return mismatch(*tensor, "F32, F16 or BF16");
  }
  std::vector<float> values;
  values.resize(tensor->bytes / static_cast<uint64_t>(ggml_format(tensor->type).bytes));
  ggml_decode(tensor->type, file_.bytes(*tensor), values);
  Vector out;
  out.original = originals_.find(config_.config, slot, values);
  out.values = checkpoint_values(config_.config, slot, values);
  if (!out.original.empty()) {
    for (size_t i = 0; i < out.values.size(); ++i) out.values[i] = float_at(out.original, static_cast<int64_t>(i));
  }
  for (size_t i = 0; i < out.values.size(); ++i) {
    if (!std::isfinite(out.values[i])) {
      return corrupt("weight not finite: {}[{}]: expected a number, got {} ({})", slot.name, i, out.values[i],
                     file_.file_name());
    }
  }
  return out;
}

Status GgufSource::finish() const {
  for (const GgufTensor& tensor : file_.tensors()) {
    const bool draft = tensor.name.starts_with(fmt::format("blk.{}.", config_.config.layers));
    if (used_.contains(tensor.name) || (draft && config_.mtp_layers > 0)) continue;
    // A table that llama.cpp computes itself where the file has none.
    if (tensor.name == "rope_freqs.weight") continue;
    return unsupported("{}: expected no such tensor in a model of {} layers, got {} ({})", gguf_shown(tensor.name),
                       config_.config.layers, tensor.text(), file_.file_name())
        .with_hint("the file holds an extension that nibble does not compute");
  }
  return {};
}

}  // namespace nibble::checkpoint
