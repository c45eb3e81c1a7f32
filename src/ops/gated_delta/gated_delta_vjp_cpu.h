// The CPU kernels of gated_delta_vjp, between its checks (gated_delta_vjp.cc) and the SIMD targets (*_vjp_cpu.cc).
#pragma once

#include "ops/gated_delta/gated_delta_cpu.h"

namespace nibble::ops {

/// One value head over the rows of one tile: what the forward read, dy, and where the gradients go. head.y is not used;
/// head.state [Dk,Dv] is the state before the tile and is only read.
struct DeltaHeadVjp {
  DeltaHead head;
  const float* dy;      // rows of Dv, head.value_stride apart
  float *dq, *dk;       // rows of Dk; this value head's share
  int64_t dkey_stride;  // Hv * Dk
  float* dv;            // rows of Dv, head.value_stride apart
  float *dg, *dbeta;    // one number per token, head.gate_stride apart
  float* dS;            // [Dk,Dv] gradient of the state after the tile; becomes that of the state before it
};

/// The recurrence backwards, token by token, with delta_recurrent_vjp_floats(rows, Dk, Dv) floats of scratch.
constexpr int64_t delta_recurrent_vjp_floats(int64_t rows, int64_t key_size, int64_t value_size) {
  return rows * key_size * value_size + 4 * value_size;
}
void gated_delta_recurrent_vjp_cpu(const DeltaHeadVjp& tile, float* scratch);

/// What the chunked backward keeps of a tile from the pass that recomputes the states: [64,64] twice, [64,Dv] twice.
constexpr int64_t delta_tape_floats(int64_t value_size) {
  return kDeltaTile * (2 * kDeltaTile + 2 * value_size);
}
constexpr int64_t delta_chunk_vjp_floats(int64_t key_size, int64_t value_size) {
  return kDeltaTile * (6 * key_size + 4 * value_size + 5 * kDeltaTile) + 2 * key_size * value_size;
}

/// Fills the tape of a tile and, unless `next_state` is null, the state after it. head.q and head.y are not used.
void gated_delta_chunk_tape_cpu(const DeltaHead& head, float* next_state, float* tape, float* scratch);
/// The chunked backward of a tile. Both with delta_chunk_vjp_floats(Dk, Dv) floats of scratch.
void gated_delta_chunk_vjp_cpu(const DeltaHeadVjp& tile, const float* tape, float* scratch);

}  // namespace nibble::ops
