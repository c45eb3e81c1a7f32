#include "model/slots.h"

namespace nibble::model {
namespace {

// Places for every tensor, one after the other from `base`; with no base only their sum. Returns the bytes used.
size_t lay_out(const Config& c, Device device, int64_t count, int64_t capacity, DType kv_dtype, std::byte* base,
               std::vector<LayerSlots>& layers) {
  size_t used = 0;
  const auto take = [&](DType dtype, const Shape& shape) {
    const Tensor tensor(base == nullptr ? nullptr : base + used, dtype, shape, device);
    used += (tensor.bytes() + 255) / 256 * 256;
    return tensor;
  };
  layers.clear();
  for (const LayerType type : c.layer_types) {
    LayerSlots layer;
    if (type == LayerType::full_attention) {
      layer.keys = take(kv_dtype, {count, capacity, c.kv_heads, c.head_dim});
      layer.values = take(kv_dtype, {count, capacity, c.kv_heads, c.head_dim});
    } else {
      layer.S = take(DType::f32, {count, c.value_heads, c.key_head_dim, c.value_head_dim});
      layer.conv = take(DType::f32, {count, c.conv_kernel - 1, c.conv_dim()});
    }
    layers.push_back(layer);
  }
  return used;
}

}  // namespace

uint64_t Slots::bytes_needed(const Config& config, int64_t count, int64_t capacity, DType kv_dtype) {
  std::vector<LayerSlots> layers;
  return lay_out(config, {}, count, capacity, kv_dtype, nullptr, layers);
}

Result<Slots> Slots::create(const Config& config, Device device, int64_t count, int64_t capacity, DType kv_dtype) {
  Slots slots;
  slots.count_ = count;
  slots.capacity_ = capacity;
  NIBBLE_TRY(memory, Buffer::on(device, bytes_needed(config, count, capacity, kv_dtype)));
  slots.memory_ = std::move(memory);
  lay_out(config, device, count, capacity, kv_dtype, slots.memory_.data(), slots.layers_);
  return slots;
}

}  // namespace nibble::model
