#include <algorithm>

#include "ops/backend.h"
#include "ops/conv/conv_silu.h"
#include "ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/conv/conv_silu_vjp_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// One token: d = dy * silu'(pre), dw[j] += d * row[j]. row[j] is the input of tap j; taps and dw are [4,n].
void conv_silu_vjp_row(const float* dy, const float* const row[4], const float* taps, float* d, float* dw, int64_t n) {
  for_vectors(n, [&](int64_t c, auto load, auto store) HWY_ATTR {
    V in[4];
    for (int64_t j = 0; j < 4; ++j) in[j] = load(row[j] + c);
    V pre = hn::Mul(load(taps + c), in[0]);
    for (int64_t j = 1; j < 4; ++j) pre = hn::MulAdd(load(taps + j * n + c), in[j], pre);
    const V slope = hn::Mul(load(dy + c), silu_slope(pre).slope);
    store(slope, d + c);
    for (int64_t j = 0; j < 4; ++j) store(hn::MulAdd(slope, in[j], load(dw + j * n + c)), dw + j * n + c);
  });
}

/// dmix = sum_j taps[j] * later[j], where later[j] is d of the token that read this one through tap j.
void spread_row(const float* const later[4], const float* taps, float* dmix, int64_t n) {
  for_vectors(n, [&](int64_t c, auto load, auto store) HWY_ATTR {
    V sum = hn::Mul(load(taps + c), load(later[0] + c));
    for (int64_t j = 1; j < 4; ++j) sum = hn::MulAdd(load(taps + j * n + c), load(later[j] + c), sum);
    store(sum, dmix + c);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(conv_silu_vjp_row);
HWY_EXPORT(spread_row);

constexpr int64_t kSlice = 128;   // channels per item: the scratch of one fits the L1 cache
constexpr int64_t kBlock = 256;   // tokens whose dw is summed before it joins the rest
constexpr int64_t kScratch = 13;  // rows of kSlice: taps, dw and the last four d, and one of zeros

}  // namespace

void conv_silu_vjp(Context& cx, const Tensor& dy, const Tensor& mix, const Tensor& w, const Tensor& state, Tensor& dmix,
                   Tensor& dw) {
  require_cpu("conv_silu_vjp", dmix);
  NIBBLE_CHECK(mix.rank() == 2);
  const int64_t rows = mix.dim(0), channels = mix.dim(1);
  NIBBLE_CHECK(dy.shape() == mix.shape() && dmix.shape() == mix.shape() && w.shape() == Shape({channels, 4}));
  NIBBLE_CHECK(state.empty() || state.shape() == Shape({3, channels}));
  NIBBLE_CHECK(dw.empty() || dw.shape() == w.shape());
  const float *upstream = dy.f32(), *in = mix.f32(), *weight = w.f32();
  const float* past = state.empty() ? nullptr : state.f32();
  float *out = dmix.f32(), *total = dw.empty() ? nullptr : dw.f32();

  const int64_t slices = (channels + kSlice - 1) / kSlice;
  for_each_item(cx, slices, rows * kSlice * 8, kScratch * kSlice, [&](int64_t item, float* scratch) {
    const int64_t first = item * kSlice, n = std::min(kSlice, channels - first);
    float *taps = scratch, *sums = taps + 4 * n, *ring = sums + 4 * n, *zeros = ring + 4 * n;
    for (int64_t i = 0; i < 4 * n; ++i) taps[i % 4 * n + i / 4] = weight[4 * first + i];
    std::fill_n(sums, 4 * n, 0.0f);
    std::fill_n(zeros, n, 0.0f);
    const auto input = [&](int64_t t) {
      if (t >= 0) return in + t * channels + first;
      return past != nullptr ? past + (t + 3) * channels + first : zeros;
    };
    // dmix of a token is complete three tokens later.
    for (int64_t t = 0; t < rows + 3; ++t) {
      if (t < rows) {
        const float* const taken[4] = {input(t - 3), input(t - 2), input(t - 1), input(t)};
        HWY_DYNAMIC_DISPATCH(conv_silu_vjp_row)
        (upstream + t * channels + first, taken, taps, ring + t % 4 * n, sums, n);
      }
      if (t >= 3) {
        const float* later[4];
        for (int64_t j = 0; j < 4; ++j) later[j] = t - j < rows ? ring + (t - j) % 4 * n : zeros;
        HWY_DYNAMIC_DISPATCH(spread_row)(later, taps, out + (t - 3) * channels + first, n);
      }
      if (total != nullptr && (t % kBlock == kBlock - 1 || t == rows + 2)) {
        for (int64_t i = 0; i < 4 * n; ++i) total[4 * first + i] += sums[i % 4 * n + i / 4];
        std::fill_n(sums, 4 * n, 0.0f);
      }
    }
  });
}

}  // namespace nibble::ops
#endif
