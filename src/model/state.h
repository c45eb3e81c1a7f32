// State: what a sequence leaves behind for its next token.
//
// A full-attention layer keeps keys and values by position, so it can be truncated. A delta-rule layer keeps one matrix
// per value head and three columns of convolution input; it has no history, so going back needs a snapshot.
#pragma once

#include <vector>

#include "model/config.h"
#include "tensor/tensor.h"

namespace nibble::model {

/// What a layer keeps; the tensors of the other kind stay empty.
struct LayerState {
  Tensor keys, values;  // [capacity,nkv,D] f32 or bf16: full attention, rows before State::position() are valid
  Tensor S;             // [Hv,Dk,Dv] f32: gated delta rule
  Tensor conv;          // [kernel-1,CD] f32: the last columns of mix, before convolution and SiLU
};

class Snapshot;

/// Owned by one sequence at a time. Not thread-safe.
class State {
 public:
  /// Reserves everything a sequence of `capacity` tokens needs; nothing is allocated afterwards.
  State(const Config& config, int64_t capacity, DType kv_dtype);
  static uint64_t bytes_needed(const Config& config, int64_t capacity, DType kv_dtype);

  int64_t position() const { return position_; }  // tokens seen so far
  int64_t capacity() const { return capacity_; }
  void advance(int64_t tokens);
  LayerState& layer(int i) { return layers_[static_cast<size_t>(i)]; }

  /// Back to the empty sequence.
  void reset();

  /// The delta-rule part and the position. Restoring is exact as long as the keys and values before that position
  /// were not overwritten in between, i.e. the state was not reset or restored to an earlier position and run on.
  Snapshot snapshot() const;
  void restore(const Snapshot& snapshot);

  size_t bytes() const { return fixed_.bytes() + kv_.bytes(); }

 private:
  Buffer fixed_, kv_;
  std::vector<LayerState> layers_;
  int64_t capacity_, position_ = 0;
};

/// Bytes of state that a token at `position` moves: keys and values of all earlier tokens read once, the delta-rule
/// state and the convolution columns read and written once.
uint64_t state_bytes_per_token(const Config& config, int64_t position, DType kv_dtype);
/// Its two parts: keys and values, and what the delta-rule layers keep.
uint64_t history_bytes_per_token(const Config& config, int64_t position, DType kv_dtype);
uint64_t delta_bytes_per_token(const Config& config);

class Snapshot {
 public:
  int64_t position() const { return position_; }
  size_t bytes() const { return fixed_.size(); }

 private:
  friend class State;
  std::vector<std::byte> fixed_;
  int64_t position_ = 0;
};

}  // namespace nibble::model
