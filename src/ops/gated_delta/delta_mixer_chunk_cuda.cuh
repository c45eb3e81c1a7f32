// What the kernels of the chunked form share: see delta_mixer_chunk_cuda.cu.
#pragma once

#include "ops/gated_delta/delta_mixer_cuda.h"
#include "ops/gated_delta/tile_cuda.cuh"
#include "tensor/numeric.h"

namespace nibble::ops::delta {

constexpr int kSize = kDeltaChunkSize, kRows = kDeltaChunk;
constexpr int kStride = kDeltaRowStride, kColumnStride = kDeltaColumnStride;
constexpr uint32_t kRowTileBytes = 2 * kDeltaRowTile, kColumnTileBytes = 2 * kDeltaColumnTile,
                   kStateTileBytes = 2 * kDeltaStateTile;

/// Scratch of one window. A chunk's tiles of all heads stand side by side.
struct Tiles {
  uint16_t *q, *k;    // [window,Hk] row tiles
  uint16_t* vw;       // [window,Hv] row tiles: V, then W
  uint16_t* ud;       // [window,Hv] column tiles: U', then D'
  uint16_t* state;    // [window,Hv] state tiles: S' before the chunk
  float *sum, *beta;  // [window,Hv,64]: G, beta
};

/// numerator / (1 + exp(-x)). Beyond 80 the exponential would make the quick division return 0; there the result is
/// below 1e-33.
__device__ inline float quick_logistic(float x, float numerator) {
  return __fdividef(numerator, 1.0f + __expf(fminf(-x, 80.0f)));
}
__device__ inline float gate_of(float z, Gate gate) {
  return quick_logistic(z, gate == Gate::silu ? z : 1.0f);
}

struct Chunk {
  int sequence;           // -1: there is none
  int number;             // in its sequence
  int first, rows, slot;  // of the sequence
  bool fresh;
  __device__ int filled() const { return min(kRows, rows - number * kRows); }
  __device__ bool last() const { return (number + 1) * kRows >= rows; }
};

__device__ inline int chunks_of(const DeltaMixerArgs& m, int sequence) {
  const int rows = m.begin[sequence + 1] - m.begin[sequence];
  return m.slot[sequence] < 0 || rows <= kDeltaStepRows ? 0 : (rows + kRows - 1) / kRows;
}

__device__ inline Chunk chunk_in(const DeltaMixerArgs& m, int sequence, int number) {
  const int first = m.begin[sequence];
  return {sequence, number, first, m.begin[sequence + 1] - first, m.slot[sequence], m.position[sequence] == 0};
}

/// Chunks are counted through all sequences in their order.
__device__ inline Chunk chunk_at(const DeltaMixerArgs& m, int index) {
  int before = 0;
  for (int s = 0; s < m.sequences; ++s) {
    const int chunks = chunks_of(m, s);
    if (index < before + chunks) return chunk_in(m, s, index - before);
    before += chunks;
  }
  return {.sequence = -1};
}

// The four kernels of a window, in the order in which they run; `window` is its first chunk.
void queue_operands(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks);
void queue_solve(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks);
void queue_states(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks);
void queue_outputs(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks);

}  // namespace nibble::ops::delta
