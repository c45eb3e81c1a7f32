#include "ops/backend.h"
#include "ops/gated_delta/delta_gates.h"
#include "ops/gated_delta/gates.h"
#include "ops/parallel.h"

namespace nibble::ops {

void delta_gates(Context& cx, const Tensor& a, const Tensor& b, const Tensor& a_log, const Tensor& dt_bias, Tensor& g,
                 Tensor& beta) {
  require_cpu("delta_gates", g);
  NIBBLE_CHECK(a.rank() == 2);
  const int64_t rows = a.dim(0), heads = a.dim(1);
  NIBBLE_CHECK(b.shape() == a.shape() && g.shape() == a.shape() && beta.shape() == a.shape());
  NIBBLE_CHECK(a_log.shape() == Shape{heads} && dt_bias.shape() == Shape{heads});
  const float *in_a = a.f32(), *in_b = b.f32(), *decay = a_log.f32(), *bias = dt_bias.f32();
  float *out_g = g.f32(), *out_beta = beta.f32();
  constexpr int64_t kStepsPerHead = 64;  // four transcendental functions
  cx.pool.parallel_for(rows, row_grain(heads * kStepsPerHead), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t i = t * heads + h;
        out_g[i] = delta_decay(in_a[i], decay[h], bias[h]);
        out_beta[i] = delta_strength(in_b[i]);
      }
    }
  });
}

}  // namespace nibble::ops
