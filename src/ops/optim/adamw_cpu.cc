// One block of 256 at a time: everything it needs is decoded to f32 on the stack, updated, and encoded again.
#include <algorithm>
#include <cmath>

#include "ops/optim/adamw_blocks.h"
#include "ops/optim/moment_code.h"
#include "ops/optim/split_master.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/optim/adamw_cpu.cc"
#include "hwy/foreach_target.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// A block in f32. Elements beyond the end of the tensor are zeros, so the loop runs over whole vectors.
struct Block {
  HWY_ALIGN float w[kMomentBlock], g[kMomentBlock], m[kMomentBlock], v[kMomentBlock];
};

// Separate multiplications and additions: an FMA would round differently on targets that have none.
HWY_INLINE void update(const AdamWJob& job, Block& block) {
  const auto set = [](float x) { return hn::Set(D(), x); };
  for (int64_t i = 0; i < kMomentBlock; i += kLanes) {
    const V g = hn::Mul(hn::Load(D(), block.g + i), set(job.clip));
    const V m = hn::Add(hn::Mul(hn::Load(D(), block.m + i), set(job.beta1)), hn::Mul(g, set(job.one_minus_beta1)));
    const V v =
        hn::Add(hn::Mul(hn::Load(D(), block.v + i), set(job.beta2)), hn::Mul(hn::Mul(g, g), set(job.one_minus_beta2)));
    const V divisor = hn::Add(hn::Mul(hn::Sqrt(v), set(job.root)), set(job.eps));
    const V kept = hn::Mul(hn::Load(D(), block.w + i), set(job.keep));
    hn::Store(hn::Sub(kept, hn::Div(hn::Mul(m, set(job.rate)), divisor)), D(), block.w + i);
    hn::Store(m, D(), block.m + i);
    hn::Store(v, D(), block.v + i);
  }
}

HWY_INLINE void load_floats(const Tensor& t, int64_t first, int64_t n, float* out) {
  if (t.dtype() == DType::f32) {
    std::copy_n(t.f32() + first, n, out);
    return;
  }
  const uint16_t* in = t.bf16() + first;
  for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_f32(in[i]);
}

HWY_INLINE void load_weights(const AdamWParameter& p, int64_t first, int64_t n, float* out) {
  if (p.low.empty()) return load_floats(p.w, first, n, out);
  const uint16_t *hi = p.w.bf16() + first, *lo = p.low.u16() + first;
  for (int64_t i = 0; i < n; ++i) out[i] = split_join(hi[i], lo[i]);
}

HWY_INLINE void store_stochastic(const AdamWJob& job, RandomPurpose purpose, const float* x, int64_t first, int64_t n,
                                 uint16_t* out) {
  for (int64_t i = 0; i < n; i += kRandomGroup) {
    const auto bits = random16(job.key, purpose, static_cast<uint64_t>((first + i) / kRandomGroup));
    const int64_t count = std::min(kRandomGroup, n - i);
    for (int64_t j = 0; j < count; ++j) out[i + j] = stochastic_bf16(x[i + j], bits[static_cast<size_t>(j)]);
  }
}

HWY_INLINE void store_weights(const AdamWJob& job, const float* w, int64_t first, int64_t n) {
  const AdamWParameter& p = job.parameter;
  if (p.w.dtype() == DType::f32) {
    std::copy_n(w, n, p.w.f32() + first);
  } else if (p.low.empty()) {
    store_stochastic(job, RandomPurpose::weight, w, first, n, p.w.bf16() + first);
  } else {
    uint16_t *hi = p.w.bf16() + first, *lo = p.low.u16() + first;
    for (int64_t i = 0; i < n; ++i) {
      hi[i] = split_hi(w[i]);
      lo[i] = split_lo(w[i]);
    }
  }
}

HWY_INLINE void load_moment(const Moment& moment, const MomentCode& code, int64_t first, int64_t n, float* out) {
  if (moment.values.dtype() != DType::u8) return load_floats(moment.values, first, n, out);
  decode_moment(code, moment.values.u8() + first, moment.absmax.f32()[first / kMomentBlock], n, out);
}

HWY_INLINE void store_moment(const AdamWJob& job, RandomPurpose purpose, const Moment& moment, const float* x,
                             int64_t first, int64_t n) {
  switch (moment.values.dtype()) {
    case DType::f32:
      std::copy_n(x, n, moment.values.f32() + first);
      return;
    case DType::bf16:
      return store_stochastic(job, purpose, x, first, n, moment.values.bf16() + first);
    default:
      const auto encode = purpose == RandomPurpose::first_moment ? encode_signed_moment : encode_unsigned_moment;
      moment.absmax.f32()[first / kMomentBlock] = encode(x, n, moment.values.u8() + first);
  }
}

void blocks(const AdamWJob& job, int64_t begin, int64_t end) {
  const AdamWParameter& p = job.parameter;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t first = b * kMomentBlock, n = std::min(kMomentBlock, job.n - first);
    Block block;
    if (n < kMomentBlock) block = {};
    load_weights(p, first, n, block.w);
    load_floats(p.grad, first, n, block.g);
    load_moment(p.m, signed_moment_code(), first, n, block.m);
    load_moment(p.v, unsigned_moment_code(), first, n, block.v);
    update(job, block);
    store_weights(job, block.w, first, n);
    store_moment(job, RandomPurpose::first_moment, p.m, block.m, first, n);
    store_moment(job, RandomPurpose::second_moment, p.v, block.v, first, n);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(blocks);

}  // namespace

AdamWJob::AdamWJob(const AdamW& o, const RandomKey& key, const AdamWParameter& parameter)
    : parameter(parameter),
      key(key),
      n(parameter.w.elements()),
      clip(o.clip),
      beta1(o.beta1),
      beta2(o.beta2),
      one_minus_beta1(static_cast<float>(1 - static_cast<double>(o.beta1))),
      one_minus_beta2(static_cast<float>(1 - static_cast<double>(o.beta2))),
      keep(static_cast<float>(1 - static_cast<double>(o.lr) * o.weight_decay)),
      eps(o.eps) {
  const auto t = static_cast<double>(o.step);
  rate = static_cast<float>(o.lr / (1 - std::pow(static_cast<double>(o.beta1), t)));
  root = static_cast<float>(1 / std::sqrt(1 - std::pow(static_cast<double>(o.beta2), t)));
}

void adamw_blocks(const AdamWJob& job, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(blocks)(job, begin, end);
}

}  // namespace nibble::ops
#endif
