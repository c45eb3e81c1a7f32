// On a CPU: the ops that the formula names, one sequence after the other.
#include <algorithm>
#include <array>
#include <cmath>

#include "ops/conv/conv_silu.h"
#include "ops/gated_delta/delta_gates.h"
#include "ops/gated_delta/delta_mixer_backends.h"
#include "ops/gated_delta/gated_delta.h"
#include "ops/norm/l2_norm.h"
#include "ops/shape/split.h"

namespace nibble::ops {

void delta_mixer_cpu(Context& cx, const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a,
                     const Tensor& b, const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y) {
  const int64_t heads = z.dim(1), value_size = z.dim(2), key_size = S.dim(2), channels = mix.dim(1);
  const int64_t key_heads = (channels - heads * value_size) / (2 * key_size);
  const float scale = 1 / std::sqrt(static_cast<float>(key_size));
  const auto slot_of = [](const Tensor& states, int64_t slot) {  // [slots,...] -> [...]
    const Tensor one = states.rows(slot, slot + 1);
    return states.rank() == 3 ? one.reshape({one.dim(1), one.dim(2)})
                              : one.reshape({one.dim(1), one.dim(2), one.dim(3)});
  };
  for (int64_t s = 0; s < batch.sequences; ++s) {
    const int64_t begin = batch.begin.i32()[s], end = batch.begin.i32()[s + 1], slot = batch.slot.i32()[s],
                  n = end - begin;
    if (slot < 0 || n == 0) continue;
    Tensor conv = slot_of(conv_state, slot), state = slot_of(S, slot);
    if (batch.position.i32()[s] == 0) {
      std::ranges::fill(conv.f32_span(), 0.0f);
      std::ranges::fill(state.f32_span(), 0.0f);
    }
    const Arena::Scope scope(cx.arena);
    Tensor qkv = cx.arena.f32({n, channels});
    conv_silu(cx, mix.rows(begin, end), w.conv, conv, qkv);
    std::array<Tensor, 3> parts = {cx.arena.f32({n, key_heads, key_size}), cx.arena.f32({n, key_heads, key_size}),
                                   cx.arena.f32({n, heads, value_size})};
    split_columns(cx, qkv, parts);
    auto& [q, k, v] = parts;
    l2_norm(cx, q, w.l2_eps, q);
    l2_norm(cx, k, w.l2_eps, k);
    Tensor g = cx.arena.f32({n, heads}), beta = cx.arena.f32({n, heads}), read = cx.arena.f32({n, heads, value_size});
    delta_gates(cx, a.rows(begin, end), b.rows(begin, end), w.a_log, w.dt_bias, g, beta);
    gated_delta(cx, q, k, v, g, beta, scale, state, read);
    Tensor out = y.rows(begin, end);
    gated_rms_norm(cx, read, z.rows(begin, end), w.norm, w.norm_eps, w.gate, out);
  }
}

}  // namespace nibble::ops
