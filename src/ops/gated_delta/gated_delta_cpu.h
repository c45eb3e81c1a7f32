// The CPU kernels of gated_delta, between its checks (gated_delta.cc) and the SIMD targets (*_cpu.cc).
#pragma once

#include <cstdint>

namespace nibble::ops {

/// The operands of one value head over the rows of one tile. Strides are the distances between tokens.
struct DeltaHead {
  int64_t rows, key_size, value_size;  // tokens, Dk, Dv
  const float *q, *k;                  // rows of Dk
  int64_t key_stride;                  // Hk * Dk
  const float* v;                      // rows of Dv
  float* y;                            // rows of Dv
  int64_t value_stride;                // Hv * Dv
  const float *g, *beta;               // one number per token
  int64_t gate_stride;                 // Hv
  float scale;
  float* state;  // [Dk,Dv]
};

constexpr int64_t kDeltaTile = 64;      // rows of a chunk: C of the chunked form
constexpr int64_t kRecurrentRows = 16;  // a tile of at most this many rows runs the recurrence
constexpr int64_t kDeltaColumns = 32;   // state columns that one recurrent work item owns

/// The recurrence over state columns [column, column + width); the columns of a head are independent of each other.
/// `width` is 16 or kDeltaColumns.
void gated_delta_recurrent_cpu(const DeltaHead& head, int64_t column, int64_t width);

/// Scratch of one chunk: its operands, scaled copies and the four matrices between its rows.
constexpr int64_t delta_chunk_floats(int64_t key_size, int64_t value_size) {
  return kDeltaTile * (5 * key_size + 3 * value_size + 4 * kDeltaTile);
}

/// The chunked form over at most kDeltaTile rows, with delta_chunk_floats(Dk, Dv) floats of scratch.
void gated_delta_chunk_cpu(const DeltaHead& head, float* scratch);

}  // namespace nibble::ops
