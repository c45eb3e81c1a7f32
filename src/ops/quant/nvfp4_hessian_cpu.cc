// The search behind strategy `hessian`. Scale bytes are tried side by side, one per lane, so every byte's error is
// summed in the same order whatever the width of a vector: in f64, products and sums apart.
#include <algorithm>
#include <array>
#include <cmath>

#include "ops/quant/nvfp4_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/quant/nvfp4_hessian_cpu.cc"
#include "hwy/foreach_target.h"
#include "ops/quant/nvfp4-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

// Bytes that are tried together: one vector of f32, two of f64 (one where an f64 vector has as many lanes).
constexpr int kTogether = static_cast<int>(kLanes);
using D64 = hn::CappedTag<double, 8>;
using V64 = hn::Vec<D64>;
using Half32 = hn::Rebind<float, D64>;
constexpr int kLanes64 = static_cast<int>(hn::MaxLanes(D64()));
static_assert(kTogether % kLanes64 == 0);

/// error[l] = e' H e for scale bytes first + l, l < kTogether.
HWY_INLINE void hessian_errors(const float* w, int first, float ws2, const Nvfp4BlockHessian& hessian, double* error) {
  HWY_ALIGN float steps[kTogether], decoded[kBlock][kTogether];
  for (int l = 0; l < kTogether; ++l) steps[l] = nvfp4_step(static_cast<uint8_t>(first + l), ws2);
  const V step = hn::Load(D(), steps);
  for (int64_t i = 0; i < kBlock; ++i) {
    hn::Store(hn::Mul(round_to_e2m1(hn::Div(hn::Set(D(), w[i]), step)), step), D(), decoded[i]);
  }
  for (int half = 0; half < kTogether; half += kLanes64) {
    V64 e[kBlock];
    for (int64_t i = 0; i < kBlock; ++i) {
      const V64 value = hn::PromoteTo(D64(), hn::Load(Half32(), decoded[i] + half));
      e[i] = hn::Sub(value, hn::Set(D64(), static_cast<double>(w[i])));
    }
    V64 sum = hn::Zero(D64());
    const double* h = hessian.upper;
    for (int64_t i = 0; i < kBlock; ++i) {
      V64 row = hn::Mul(hn::Set(D64(), *h++), e[i]);
      for (int64_t j = i + 1; j < kBlock; ++j) row = hn::Add(row, hn::Mul(hn::Set(D64(), *h++), e[j]));
      sum = hn::Add(sum, hn::Mul(e[i], row));
    }
    hn::StoreU(sum, D64(), error + half);
  }
}

/// Below which step no byte can win. With |x| = sqrt(x' H x), a seminorm, and all decoded values within 6 steps of 0,
///   |e| >= |w| - |decoded| >= |w| - 6 step sqrt(sum |H_ij|),
/// which grows as the step falls. H comes from sums in f32, so its smallest eigenvalue may lie below zero by rounding;
/// the bound allows for 1e-5 of the trace.
struct LowerBound {
  double norm, size, slack, length;

  LowerBound(const float* w, const Nvfp4BlockHessian& hessian) {
    double squares = 0, energy = 0;
    const double* h = hessian.upper;
    for (int64_t i = 0; i < kBlock; ++i) {
      double row = 0;
      for (int64_t j = i; j < kBlock; ++j) row += *h++ * static_cast<double>(w[j]);
      energy += static_cast<double>(w[i]) * row;
      squares += static_cast<double>(w[i]) * w[i];
    }
    slack = 1e-5 * hessian.trace;
    norm = std::sqrt(std::max(energy, 0.0));
    size = std::sqrt(hessian.magnitude + kBlock * slack);
    length = std::sqrt(squares);
  }

  bool excludes(double step, double smallest) const {
    const double gap = norm - 6 * step * size, reach = length + 6 * 4 * step;
    return gap > 0 && gap * gap - slack * reach * reach > smallest * (1 + 1e-9);
  }
};

HWY_INLINE uint8_t hessian_search_block(const float* w, float ws2, const Nvfp4BlockHessian& hessian) {
  const float amax = block_amax(w);
  const uint8_t start = nvfp4_block_scale(amax, ws2);
  if (amax == 0 || start == kE4m3Nan) return start;

  // Lanes beyond 0x7E hold NaN steps and errors, which no comparison below accepts. One step up from a byte whose
  // codes are all zero nothing changes any more.
  std::array<double, kE4m3MaxByte + 1 + 2 * kTogether> error;
  const int aligned = 1 + (start - 1) / kTogether * kTogether;
  int first = aligned, end = aligned;
  double smallest = HUGE_VAL;
  const auto try_bytes = [&](int from) HWY_ATTR {
    hessian_errors(w, from, ws2, hessian, error.data() + from);
    for (int byte = from; byte < from + kTogether && byte <= kE4m3MaxByte; ++byte) {
      smallest = error[static_cast<size_t>(byte)] < smallest ? error[static_cast<size_t>(byte)] : smallest;
    }
  };
  while (end <= kE4m3MaxByte) {
    const bool nothing_left = end > start && amax <= 0.25f * nvfp4_step(static_cast<uint8_t>(end - 1), ws2);
    if (nothing_left) break;
    try_bytes(end);
    end += kTogether;
  }
  const LowerBound bound(w, hessian);
  while (first > 1) {
    const auto below = static_cast<double>(nvfp4_step(static_cast<uint8_t>(first - 1), ws2));
    if (bound.excludes(below, smallest)) break;
    first -= kTogether;
    try_bytes(first);
  }
  int best = first;
  for (int byte = first + 1; byte < end && byte <= kE4m3MaxByte; ++byte) {
    if (error[static_cast<size_t>(byte)] < error[static_cast<size_t>(best)]) best = byte;
  }
  return static_cast<uint8_t>(best);
}

void hessian_row(const float* w, int64_t blocks, float ws2, const Nvfp4BlockHessian* hessian, uint8_t* scales) {
  for (int64_t b = 0; b < blocks; ++b) {
    if (!hessian[b].zero()) scales[b] = hessian_search_block(w + b * kBlock, ws2, hessian[b]);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(hessian_row);

}  // namespace

Nvfp4BlockHessian nvfp4_block_hessian(const float* h) {
  constexpr int64_t kBlock = kNvfp4Block;
  Nvfp4BlockHessian block;
  double* out = block.upper;
  for (int64_t i = 0; i < kBlock; ++i) {
    *out++ = static_cast<double>(h[i * kBlock + i]);
    block.trace += static_cast<double>(h[i * kBlock + i]);
    for (int64_t j = i + 1; j < kBlock; ++j) {
      *out++ = static_cast<double>(h[i * kBlock + j]) + static_cast<double>(h[j * kBlock + i]);
    }
  }
  for (int64_t i = 0; i < kBlock * kBlock; ++i) block.magnitude += std::abs(static_cast<double>(h[i]));
  return block;
}

void nvfp4_hessian_row(const float* w, int64_t blocks, float ws2, const Nvfp4BlockHessian* hessian, uint8_t* scales) {
  for (int64_t b = 0; b < blocks; ++b) {
    if (hessian[b].zero()) nvfp4_search_row(w + b * kNvfp4Block, 1, ws2, scales + b);
  }
  HWY_DYNAMIC_DISPATCH(hessian_row)(w, blocks, ws2, hessian, scales);
}

}  // namespace nibble::ops
#endif
