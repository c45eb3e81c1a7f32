#include "ops/gated_delta/delta_mixer_cuda.h"

#include <cmath>

#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

DeltaMixerArgs args_of(const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a, const Tensor& b,
                       const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y) {
  const int64_t Hv = z.dim(1), Dv = z.dim(2), Dk = S.dim(2), channels = mix.dim(1);
  return {.begin = batch.begin.i32(),
          .slot = batch.slot.i32(),
          .position = batch.position.i32(),
          .sequences = static_cast<int>(batch.sequences),
          .longest = batch.longest,
          .mix = mix.bf16(),
          .z = z.bf16(),
          .y = y.bf16(),
          .a = a.f32(),
          .b = b.f32(),
          .conv = w.conv.f32(),
          .a_log = w.a_log.f32(),
          .dt_bias = w.dt_bias.f32(),
          .norm = w.norm.f32(),
          .conv_state = conv_state.f32(),
          .S = S.f32(),
          .key_heads = static_cast<int>((channels - Hv * Dv) / (2 * Dk)),
          .heads = static_cast<int>(Hv),
          .key_size = static_cast<int>(Dk),
          .value_size = static_cast<int>(Dv),
          .channels = static_cast<int>(channels),
          .scale = 1 / std::sqrt(static_cast<float>(Dk)),
          .l2_eps = w.l2_eps,
          .norm_eps = w.norm_eps,
          .gate = w.gate};
}

}  // namespace

void delta_mixer_cuda(Context& cx, const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a,
                      const Tensor& b, const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y) {
  const int64_t T = z.dim(0);
  if (T == 0 || batch.sequences == 0) return;
  const DeltaMixerArgs args = args_of(batch, mix, z, a, b, w, conv_state, S, y);
  if (!has_clusters(cx.device)) return delta_mixer_heads(cx, args);
  const DeltaWindows windows = delta_windows(T, batch.sequences, batch.longest, args.key_size, args.value_size);
  // A batch of one sequence that goes in chunks has no short one; its length may shrink between replays all the same.
  delta_mixer_steps(cx, args, windows.chunks > 0);
  if (windows.chunks > 0) delta_mixer_chunks(cx, args, windows);
}

void delta_mixer_heads_cuda(Context& cx, const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a,
                            const Tensor& b, const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y) {
  delta_mixer_heads(cx, args_of(batch, mix, z, a, b, w, conv_state, S, y));
}

}  // namespace nibble::ops
