// delta_mixer: what a delta-rule layer does between its projections, in one op.
#pragma once

#include "ops/batch.h"
#include "ops/norm/gated_rms_norm.h"
#include "tensor/context.h"

namespace nibble::ops {

struct DeltaMixerWeights {
  Tensor conv;            // [CD,4] f32, the last tap is the newest
  Tensor a_log, dt_bias;  // [Hv] f32
  Tensor norm;            // [Dv] f32
  float l2_eps = 1e-6f, norm_eps = 1e-6f;
  Gate gate = Gate::silu;
};

/// delta_mixer: for each sequence of the batch, with its slot's convolution columns and S,
///   q | k | v = conv_silu(mix)                                [Hk*Dk | Hk*Dk | Hv*Dv]
///   q, k = l2_norm(q), l2_norm(k);   g, beta = delta_gates(a, b)
///   y = gated_rms_norm(gated_delta(q, k, v, g, beta, 1/sqrt(Dk)), z)
/// which are the formulas of the ops of these names.
/// shapes   mix [T,CD]   z, y [T,Hv,Dv]   a, b [T,Hv] f32   conv_state [slots,3,CD] f32   S [slots,Hv,Dk,Dv] f32
///          CD = 2*Hk*Dk + Hv*Dv, Hv a multiple of Hk
///          mix, z, y: f32 on a CPU, bf16 on a GPU
///          on a GPU Dk, Dv <= 256, and a value head's columns in slices of 64 times Hv/Hk must not exceed 8
/// numeric  f32 inside, y is rounded once; on a GPU with Dk = Dv = 128 the products of sequences longer than 16 rows
///          have BF16 operands.
///          A row's bits depend on its sequence alone, and for sequences up to 16 rows not on how calls cut it.
/// effects  writes y, updates conv_state and S of the batch's slots; a sequence at position 0 begins from zeros;
///          scratch from cx.arena, on a GPU delta_mixer_scratch_bytes.
///          On a GPU the batch's numbers, conv_state and S are read before the kernels in front have ended. What writes
///          them must be separated from this call by more than kernels: by a copy or the end of a graph, as the numbers
///          of a new step are.
void delta_mixer(Context& cx, const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a, const Tensor& b,
                 const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y);

/// Scratch that delta_mixer takes on a GPU, for batches within these bounds.
size_t delta_mixer_scratch_bytes(int64_t rows, int64_t sequences, int64_t longest, int64_t key_heads, int64_t heads,
                                 int64_t key_size, int64_t value_size);

}  // namespace nibble::ops
