// The recurrent form: a slice of state columns stays in the L1 cache while all tokens of the tile pass over it, so the
// state travels through memory once, whatever the number of tokens.
#include <cmath>

#include "ops/gated_delta/gated_delta_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gated_delta/recurrent_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// One token over kN vectors of columns.
template <int kN>
HWY_INLINE void step(const DeltaHead& head, int64_t t, int64_t column) {
  const float *q = head.q + t * head.key_stride, *k = head.k + t * head.key_stride;
  const V decay = hn::Set(D(), std::exp(head.g[t * head.gate_stride]));
  float* const state = head.state + column;

  V read[kN];  // S^T k
  for (int j = 0; j < kN; ++j) read[j] = hn::Zero(D());
  for (int64_t i = 0; i < head.key_size; ++i) {
    const V key = hn::Set(D(), k[i]);
    for (int j = 0; j < kN; ++j) {
      read[j] = hn::MulAdd(key, hn::LoadU(D(), state + i * head.value_size + j * kLanes), read[j]);
    }
  }
  const V beta = hn::Set(D(), head.beta[t * head.gate_stride]);
  V delta[kN], sum[kN];
  for (int j = 0; j < kN; ++j) {
    const V value = hn::LoadU(D(), head.v + t * head.value_stride + column + j * kLanes);
    delta[j] = hn::Mul(beta, hn::NegMulAdd(decay, read[j], value));
    sum[j] = hn::Zero(D());
  }
  for (int64_t i = 0; i < head.key_size; ++i) {
    const V key = hn::Set(D(), k[i]), query = hn::Set(D(), q[i]);
    for (int j = 0; j < kN; ++j) {
      float* const cell = state + i * head.value_size + j * kLanes;
      const V next = hn::MulAdd(key, delta[j], hn::Mul(decay, hn::LoadU(D(), cell)));
      hn::StoreU(next, D(), cell);
      sum[j] = hn::MulAdd(query, next, sum[j]);
    }
  }
  const V scale = hn::Set(D(), head.scale);
  for (int j = 0; j < kN; ++j) {
    hn::StoreU(hn::Mul(scale, sum[j]), D(), head.y + t * head.value_stride + column + j * kLanes);
  }
}

void recurrent(const DeltaHead& head, int64_t column, int64_t width) {
  // Four vectors at a time, or two where 16 columns are no more: a column's bits are the same in either.
  constexpr int kWide = kLanes >= 8 ? static_cast<int>(kDeltaColumns / kLanes) : 4;
  constexpr int kNarrow = kLanes >= 4 ? static_cast<int>(16 / kLanes) : 4;
  for (int64_t c = column; c < column + width;) {
    const bool wide = column + width - c >= kWide * kLanes;
    for (int64_t t = 0; t < head.rows; ++t) {
      if (wide) {
        step<kWide>(head, t, c);
      } else {
        step<kNarrow>(head, t, c);
      }
    }
    c += (wide ? kWide : kNarrow) * kLanes;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {

HWY_EXPORT(recurrent);

void gated_delta_recurrent_cpu(const DeltaHead& head, int64_t column, int64_t width) {
  HWY_DYNAMIC_DISPATCH(recurrent)(head, column, width);
}

}  // namespace nibble::ops
#endif
