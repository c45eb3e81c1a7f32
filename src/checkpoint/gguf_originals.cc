#include "checkpoint/gguf_originals.h"

#include <cstring>

#include "checkpoint/tensor_entry.h"
#include "io/json.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kKey = "nibble.originals";

/// Elements of one row: of a vector 1, of conv1d its taps.
int64_t row_size(const GgufSlot& slot) {
  return slot.shape.size() == 2 ? slot.shape[1] : 1;
}

int64_t element_count(const GgufSlot& slot) {
  return slot.shape[0] * row_size(slot);
}

}  // namespace

std::vector<float> gguf_values(const model::Config& config, const GgufSlot& slot, const Tensor& original) {
  const int64_t columns = row_size(slot);
  std::vector<float> out(static_cast<size_t>(element_count(slot)));
  for (int64_t r = 0; r < slot.shape[0]; ++r) {
    const int64_t from = checkpoint_index(config, slot, r);
    for (int64_t c = 0; c < columns; ++c) {
      out[static_cast<size_t>(r * columns + c)] = to_gguf(slot.hf.kind, float_at(original, from * columns + c));
    }
  }
  return out;
}

std::vector<float> checkpoint_values(const model::Config& config, const GgufSlot& slot, std::span<const float> values) {
  const int64_t columns = row_size(slot);
  std::vector<float> out(values.size());
  for (int64_t r = 0; r < slot.shape[0]; ++r) {
    const int64_t to = checkpoint_index(config, slot, r);
    for (int64_t c = 0; c < columns; ++c) {
      out[static_cast<size_t>(to * columns + c)] =
          from_gguf(slot.hf.kind, values[static_cast<size_t>(r * columns + c)]);
    }
  }
  return out;
}

std::string bytes_as(DType dtype, std::span<const float> values) {
  NIBBLE_CHECK(dtype == DType::f32 || dtype == DType::bf16);
  std::string out(values.size() * size_of(dtype), '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::f32) {
      std::memcpy(out.data() + 4 * i, &values[i], 4);
    } else {
      const uint16_t bits = f32_to_bf16(values[i]);
      std::memcpy(out.data() + 2 * i, &bits, 2);
    }
  }
  return out;
}

void OriginalsWriter::offer(const model::Config& config, const GgufSlot& slot, const Tensor& original,
                            std::span<const float> values) {
  const std::string_view bytes(static_cast<const char*>(original.raw()), original.bytes());
  if (original.dtype() == slot.hf.dtype && bytes_as(slot.hf.dtype, checkpoint_values(config, slot, values)) == bytes) {
    return;
  }
  std::vector<int64_t> shape;
  for (int i = 0; i < slot.hf.shape.rank(); ++i) shape.push_back(slot.hf.shape[i]);
  entries_.emplace_back(slot.hf.name, fmt::format("\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]",
                                                  safetensors_name(original.dtype()), fmt::join(shape, ","),
                                                  data_.size(), data_.size() + bytes.size()));
  data_ += bytes;
}

void OriginalsWriter::finish(GgufMetadata& metadata) const {
  if (entries_.empty()) return;
  std::string json = "{";
  for (const auto& [name, entry] : entries_)
    json += fmt::format("{}\"{}\":{{{}}}", json.size() > 1 ? "," : "", name, entry);
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(uint64_t{json.size()} >> (8 * i) & 0xFF);
  file += json + data_;
  metadata.add(kKey, std::as_bytes(std::span(file)));
}

Result<Originals> Originals::read(const Gguf& file) {
  Originals out;
  NIBBLE_TRY(array, file.bytes(kKey));
  if (array == nullptr) return out;
  NIBBLE_TRY(header, parse_safetensors_header(array->bytes, file.file_name() + ": " + kKey));
  out.tensors_ = std::move(header.tensors);
  out.data_ = array->bytes.subspan(header.data_begin);
  return out;
}

Tensor Originals::find(const model::Config& config, const GgufSlot& slot, std::span<const float> values) const {
  for (const TensorInfo& info : tensors_) {
    if (info.name != slot.hf.name) continue;
    if (!is_float(info.type) || !has_shape(info, slot.hf.shape)) return {};
    const Tensor original = Tensor::constant(data_.data() + info.offset, *info.type, slot.hf.shape);
    const std::vector<float> again = gguf_values(config, slot, original);
    const bool same =
        again.size() == values.size() && std::memcmp(again.data(), values.data(), values.size() * sizeof(float)) == 0;
    return same ? original : Tensor();
  }
  return {};
}

}  // namespace nibble::checkpoint
