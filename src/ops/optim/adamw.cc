#include "ops/optim/adamw.h"

#include "ops/backend.h"
#include "ops/optim/adamw_blocks.h"
#include "ops/optim/moment_code.h"
#include "ops/parallel.h"

namespace nibble::ops {
namespace {

constexpr int64_t kStepsPerElement = 16;  // see row_grain

bool is_float(const Tensor& t) {
  return t.dtype() == DType::f32 || t.dtype() == DType::bf16;
}

void check_moment(const Moment& moment, int64_t n, DType type) {
  NIBBLE_CHECK(moment.values.dtype() == type && moment.values.elements() == n);
  if (type == DType::u8) {
    NIBBLE_CHECK(moment.absmax.dtype() == DType::f32);
    NIBBLE_CHECK(moment.absmax.elements() == (n + kMomentBlock - 1) / kMomentBlock);
  } else {
    NIBBLE_CHECK(is_float(moment.values) && moment.absmax.empty());
  }
}

}  // namespace

void adamw(Context& cx, const AdamW& options, const RandomKey& key, const AdamWParameter& p) {
  require_cpu("adamw", p.w);
  const int64_t n = p.w.elements();
  NIBBLE_CHECK(is_float(p.w) && is_float(p.grad) && p.grad.elements() == n);
  NIBBLE_CHECK(p.low.empty() || (p.w.dtype() == DType::bf16 && p.low.dtype() == DType::u16 && p.low.elements() == n));
  check_moment(p.m, n, p.m.values.dtype());
  check_moment(p.v, n, p.m.values.dtype());
  NIBBLE_CHECK(options.step >= 1);

  const AdamWJob job(options, key, p);
  // A capture of one reference fits inside std::function, so nothing is allocated.
  cx.pool.parallel_for((n + kMomentBlock - 1) / kMomentBlock, row_grain(kStepsPerElement * kMomentBlock),
                       [&job](int64_t begin, int64_t end) { adamw_blocks(job, begin, end); });
}

void accumulate_bf16(Context& cx, const Tensor& x, const RandomKey& key, const Tensor& acc) {
  require_cpu("accumulate_bf16", acc);
  NIBBLE_CHECK(x.elements() == acc.elements());
  struct Job {
    const float* x;
    uint16_t* acc;
    int64_t n;
    RandomKey key;
  } const job{x.f32(), acc.bf16(), acc.elements(), key};
  const int64_t groups = (job.n + kRandomGroup - 1) / kRandomGroup;
  cx.pool.parallel_for(groups, row_grain(4 * kRandomGroup), [&job](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const auto bits = random16(job.key, RandomPurpose::gradient, static_cast<uint64_t>(group));
      const int64_t first = group * kRandomGroup, count = std::min(kRandomGroup, job.n - first);
      for (int64_t i = 0; i < count; ++i) {
        uint16_t& acc = job.acc[first + i];
        acc = stochastic_bf16(bf16_to_f32(acc) + job.x[first + i], bits[static_cast<size_t>(i)]);
      }
    }
  });
}

}  // namespace nibble::ops
