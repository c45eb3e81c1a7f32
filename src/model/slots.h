// Slots: the states of several sequences side by side, as ops that take a Batch read them.
#pragma once

#include <vector>

#include "model/config.h"
#include "tensor/tensor.h"

namespace nibble::model {

/// What a layer keeps for all slots; the tensors of the other kind stay empty.
struct LayerSlots {
  Tensor keys, values;  // [slots,capacity,nkv,D] f32 or bf16: full attention
  Tensor S;             // [slots,Hv,Dk,Dv] f32: gated delta rule
  Tensor conv;          // [slots,kernel-1,CD] f32: the last columns of mix, before convolution and SiLU
};

/// Everything that `count` sequences of up to `capacity` tokens need, reserved at once. A slot needs no clearing: a
/// sequence that stands at position 0 reads nothing of what is there.
class Slots {
 public:
  static Result<Slots> create(const Config& config, Device device, int64_t count, int64_t capacity, DType kv_dtype);
  static uint64_t bytes_needed(const Config& config, int64_t count, int64_t capacity, DType kv_dtype);

  int64_t count() const { return count_; }
  int64_t capacity() const { return capacity_; }
  LayerSlots& layer(int64_t i) { return layers_[static_cast<size_t>(i)]; }

 private:
  Buffer memory_;
  std::vector<LayerSlots> layers_;
  int64_t count_ = 0, capacity_ = 0;
};

}  // namespace nibble::model
