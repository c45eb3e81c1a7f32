#include <algorithm>

#include "ops/backend.h"
#include "ops/conv/conv_silu.h"
#include "ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/conv/conv_silu_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// One token, n channels. row[j] is the input of tap j, w the channels' taps side by side [n,4].
void conv_silu_row(const float* const row[4], const float* w, float* y, int64_t n) {
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) {
    V tap[4];
    hn::LoadInterleaved4(D(), w + 4 * c, tap[0], tap[1], tap[2], tap[3]);
    V sum = hn::Mul(tap[0], hn::LoadU(D(), row[0] + c));
    for (int j = 1; j < 4; ++j) sum = hn::MulAdd(tap[j], hn::LoadU(D(), row[j] + c), sum);
    hn::StoreU(silu(sum), D(), y + c);
  }
  if (c == n) return;
  // The channels left over, moved into whole vectors.
  HWY_ALIGN float taps[4][kLanes] = {};
  for (int64_t i = 0; i < n - c; ++i) {
    for (int j = 0; j < 4; ++j) taps[j][i] = w[4 * (c + i) + j];
  }
  V sum = hn::Mul(hn::Load(D(), taps[0]), load_some(row[0] + c, n - c));
  for (int j = 1; j < 4; ++j) sum = hn::MulAdd(hn::Load(D(), taps[j]), load_some(row[j] + c, n - c), sum);
  store_some(silu(sum), y + c, n - c);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {
HWY_EXPORT(conv_silu_row);
}

void conv_silu(Context& cx, const Tensor& mix, const Tensor& w, Tensor& state, Tensor& y) {
  require_cpu("conv_silu", y);
  NIBBLE_CHECK(mix.rank() == 2);
  const int64_t rows = mix.dim(0), channels = mix.dim(1);
  NIBBLE_CHECK(y.shape() == mix.shape() && w.shape() == Shape({channels, 4}) && state.shape() == Shape({3, channels}));
  const float *in = mix.f32(), *taps = w.f32();
  float *past = state.f32(), *out = y.f32();
  // Row t of the sequence; the state holds rows -3..-1.
  const auto row = [&](int64_t t) { return t < 0 ? past + (t + 3) * channels : in + t * channels; };

  constexpr int64_t kSlice = 512;  // channels per range: their taps and four rows fit the L1 cache
  const int64_t slices = (channels + kSlice - 1) / kSlice;
  cx.pool.parallel_for(slices, row_grain(rows * kSlice * 4), [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kSlice, n = std::min(end * kSlice, channels) - first;
    for (int64_t t = 0; t < rows; ++t) {
      const float* inputs[4];
      for (int64_t j = 0; j < 4; ++j) inputs[j] = row(t - 3 + j) + first;
      HWY_DYNAMIC_DISPATCH(conv_silu_row)(inputs, taps + 4 * first, out + t * channels + first, n);
    }
  });
  // Oldest first: each source row lies at or behind the row that it replaces.
  for (int64_t i = 0; i < 3; ++i) std::copy_n(row(rows - 3 + i), channels, past + i * channels);
}

}  // namespace nibble::ops
#endif
