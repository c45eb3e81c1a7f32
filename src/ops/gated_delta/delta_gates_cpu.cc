#include <algorithm>

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

void delta_gates_vjp(Context& cx, const Tensor& dg, const Tensor& dbeta, const Tensor& a, const Tensor& b,
                     const Tensor& a_log, const Tensor& dt_bias, Tensor& da, Tensor& db, Tensor& da_log,
                     Tensor& ddt_bias) {
  require_cpu("delta_gates_vjp", da);
  NIBBLE_CHECK(a.rank() == 2);
  for (const Tensor* t : {&dg, &dbeta, &b, static_cast<const Tensor*>(&da), static_cast<const Tensor*>(&db)}) {
    NIBBLE_CHECK(t->shape() == a.shape());
  }
  const int64_t rows = a.dim(0), heads = a.dim(1);
  for (const Tensor* t : {&a_log, &dt_bias, static_cast<const Tensor*>(&da_log), static_cast<const Tensor*>(&ddt_bias)})
    NIBBLE_CHECK(t->shape() == Shape{heads});
  const float *in_dg = dg.f32(), *in_dbeta = dbeta.f32(), *in_a = a.f32(), *in_b = b.f32();
  const float *decay = a_log.f32(), *bias = dt_bias.f32();
  float *out_a = da.f32(), *out_b = db.f32(), *sum_log = da_log.f32(), *sum_bias = ddt_bias.f32();

  constexpr int64_t kRun = 64;
  const int64_t runs = (rows + kRun - 1) / kRun;
  const Arena::Scope scope(cx.arena);
  float* const partial = cx.arena.f32({runs, 2, heads}).f32();
  cx.pool.parallel_for(runs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t run = begin; run < end; ++run) {
      for (int64_t h = 0; h < heads; ++h) {
        double log_sum = 0, bias_sum = 0;
        for (int64_t t = run * kRun; t < std::min(rows, (run + 1) * kRun); ++t) {
          const int64_t i = t * heads + h;
          out_a[i] = -expf(decay[h]) * softplus_slope(in_a[i] + bias[h]) * in_dg[i];
          out_b[i] = in_dbeta[i] * delta_strength_slope(in_b[i]);
          log_sum += static_cast<double>(in_dg[i] * delta_decay(in_a[i], decay[h], bias[h]));
          bias_sum += static_cast<double>(out_a[i]);
        }
        partial[run * 2 * heads + h] = static_cast<float>(log_sum);
        partial[(run * 2 + 1) * heads + h] = static_cast<float>(bias_sum);
      }
    }
  });
  for (int64_t run = 0; run < runs; ++run) {
    for (int64_t h = 0; h < heads; ++h) {
      sum_log[h] += partial[run * 2 * heads + h];
      sum_bias[h] += partial[(run * 2 + 1) * heads + h];
    }
  }
}

}  // namespace nibble::ops
