#include "model/state.h"

#include <cstring>

namespace nibble::model {
namespace {

// Hands out consecutive tensors of one buffer; with no buffer it only counts, so sizes and places come from one walk.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  Tensor take(DType dtype, const Shape& shape) {
    Tensor tensor(base_ == nullptr ? nullptr : base_ + used_, dtype, shape);
    used_ += (static_cast<size_t>(shape.elements()) * size_of(dtype) + 63) / 64 * 64;
    return tensor;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

void lay_out(const Config& c, int64_t capacity, DType kv_dtype, Carver& fixed, Carver& kv,
             std::vector<LayerState>& layers) {
  layers.clear();
  for (const LayerType type : c.layer_types) {
    LayerState layer;
    if (type == LayerType::full_attention) {
      layer.keys = kv.take(kv_dtype, {capacity, c.kv_heads, c.head_dim});
      layer.values = kv.take(kv_dtype, {capacity, c.kv_heads, c.head_dim});
    } else {
      layer.S = fixed.take(DType::f32, {c.value_heads, c.key_head_dim, c.value_head_dim});
      layer.conv = fixed.take(DType::f32, {c.conv_kernel - 1, c.conv_dim()});
    }
    layers.push_back(layer);
  }
}

}  // namespace

uint64_t State::bytes_needed(const Config& config, int64_t capacity, DType kv_dtype) {
  Carver fixed(nullptr), kv(nullptr);
  std::vector<LayerState> layers;
  lay_out(config, capacity, kv_dtype, fixed, kv, layers);
  return fixed.used() + kv.used();
}

State::State(const Config& config, int64_t capacity, DType kv_dtype) : capacity_(capacity) {
  Carver fixed_size(nullptr), kv_size(nullptr);
  lay_out(config, capacity, kv_dtype, fixed_size, kv_size, layers_);
  fixed_ = Buffer(fixed_size.used());
  kv_ = Buffer(kv_size.used());
  Carver fixed(fixed_.data()), kv(kv_.data());
  lay_out(config, capacity, kv_dtype, fixed, kv, layers_);
}

void State::advance(int64_t tokens) {
  NIBBLE_CHECK(tokens >= 0 && position_ + tokens <= capacity_);
  position_ += tokens;
}

void State::reset() {
  if (fixed_.bytes() > 0) std::memset(fixed_.data(), 0, fixed_.bytes());
  position_ = 0;
}

Snapshot State::snapshot() const {
  Snapshot snapshot;
  snapshot.fixed_.assign(fixed_.data(), fixed_.data() + fixed_.bytes());
  snapshot.position_ = position_;
  return snapshot;
}

void State::restore(const Snapshot& snapshot) {
  NIBBLE_CHECK(snapshot.fixed_.size() == fixed_.bytes());
  if (fixed_.bytes() > 0) std::memcpy(fixed_.data(), snapshot.fixed_.data(), fixed_.bytes());
  position_ = snapshot.position_;
}

uint64_t history_bytes_per_token(const Config& c, int64_t position, DType kv_dtype) {
  const int64_t kv = 2 * position * c.kv_dim() * static_cast<int64_t>(size_of(kv_dtype));
  return static_cast<uint64_t>(c.count(LayerType::full_attention) * kv);
}

uint64_t delta_bytes_per_token(const Config& c) {
  const int64_t S = c.value_heads * c.key_head_dim * c.value_head_dim, conv = (c.conv_kernel - 1) * c.conv_dim();
  const int64_t fixed = 2 * (S + conv) * static_cast<int64_t>(sizeof(float));
  return static_cast<uint64_t>(c.count(LayerType::linear_attention) * fixed);
}

uint64_t state_bytes_per_token(const Config& config, int64_t position, DType kv_dtype) {
  return history_bytes_per_token(config, position, kv_dtype) + delta_bytes_per_token(config);
}

}  // namespace nibble::model
