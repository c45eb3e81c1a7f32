// The kernels of delta_mixer, between its checks (delta_mixer.cc) and the two backends.
#pragma once

#include "ops/gated_delta/delta_mixer.h"

namespace nibble::ops {

void delta_mixer_cpu(Context& cx, const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a,
                     const Tensor& b, const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y);
void delta_mixer_cuda(Context& cx, const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a,
                      const Tensor& b, const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y);

/// The latter as GPUs without clusters of blocks do it, on any.
void delta_mixer_heads_cuda(Context& cx, const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a,
                            const Tensor& b, const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y);

/// How a GPU cuts sequences of more than kDeltaStepRows rows: chunks of kDeltaChunk rows counted from the first row of
/// each sequence, worked on in windows of some chunks, so that scratch does not grow with the rows of a call.
constexpr int kDeltaStepRows = 16;
constexpr int kDeltaChunk = 64;
constexpr int kDeltaChunkSize = 128;  // Dk and Dv of the chunked form

/// Tiles of a chunk in scratch, in elements. Rows are 8 elements longer than what they hold: 8 rows of a column then
/// lie in different banks of shared memory, into which whole tiles are copied.
constexpr int kDeltaRowStride = kDeltaChunkSize + 8, kDeltaColumnStride = kDeltaChunk + 8;
constexpr int kDeltaRowTile = kDeltaChunk * kDeltaRowStride;            // [64 rows, 128]
constexpr int kDeltaColumnTile = kDeltaChunkSize * kDeltaColumnStride;  // [128 columns, 64 rows]
constexpr int kDeltaStateTile = kDeltaChunkSize * kDeltaRowStride;      // [Dv,Dk]

struct DeltaWindows {
  int64_t chunks = 0, window = 0;  // no batch within the bounds has more chunks; chunks of one window
};
/// No chunks: all goes through the recurrence.
DeltaWindows delta_windows(int64_t rows, int64_t sequences, int64_t longest, int64_t key_size, int64_t value_size);

}  // namespace nibble::ops
