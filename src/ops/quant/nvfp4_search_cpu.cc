// The search behind strategy `mse`, in two stages that together give exactly the byte that trying all 126 would give.
//
// First the errors of the bytes that can win, in f32, in units of the tensor scale and with a reciprocal for the
// division: cheap and off by a bounded amount. Then the exact error, but only of bytes within that bound of the
// smallest; mostly there is one, and nothing to do.
#include <array>
#include <cmath>

#include "ops/quant/nvfp4_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/quant/nvfp4_search_cpu.cc"
#include "hwy/foreach_target.h"
#include "ops/quant/nvfp4-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

struct ScaleTable {
  std::array<float, kE4m3MaxByte + 1> value{}, reciprocal{};
  ScaleTable() {
    for (uint8_t byte = 1; byte <= kE4m3MaxByte; ++byte) {
      value[byte] = e4m3_to_f32(byte);
      reciprocal[byte] = 1 / value[byte];
    }
  }
};

/// err(s) of nvfp4.h, to the bit.
HWY_INLINE double exact_error(const float* w, uint8_t scale, float ws2) {
  const V step = hn::Set(D(), nvfp4_step(scale, ws2));
  HWY_ALIGN float decoded[kBlock];
  for (int64_t i = 0; i < kBlock; i += kLanes) {
    hn::Store(hn::Mul(round_to_e2m1(hn::Div(hn::LoadU(D(), w + i), step)), step), D(), decoded + i);
  }
  double error = 0;
  for (int64_t i = 0; i < kBlock; ++i) {
    const double difference = static_cast<double>(decoded[i]) - static_cast<double>(w[i]);
    error += difference * difference;
  }
  return error;
}

/// About err(s) / ws2^2, for u = |w| / ws2. The rounding is that of round_to_e2m1 without the sign.
HWY_INLINE float rough_error(const V* u, float scale, float reciprocal) {
  const V s = hn::Set(D(), scale), inverse = hn::Set(D(), reciprocal);
  V sum = hn::Zero(D());
  for (int64_t i = 0; i < kVectorsPer16; ++i) {
    const V x = hn::Min(hn::Mul(u[i], inverse), hn::Set(D(), kE2m1Max));
    const V power_of_x = hn::And(hn::Max(x, hn::Set(D(), 1.0f)), hn::BitCast(D(), hn::Set(I(), 0x7F800000)));
    const V power = hn::Mul(power_of_x, hn::Set(D(), 0x1p22f));
    const V difference = hn::NegMulAdd(hn::Sub(hn::Add(x, power), power), s, u[i]);
    sum = hn::MulAdd(difference, difference, sum);
  }
  return sum_lanes(sum);
}

/// What a byte may exceed the smallest rough error by and still have the smallest exact one. u, the step, the quotient
/// and the product each carry a relative error below 2^-23, and a tie that falls to the other side moves a decoded
/// value by no more than that, so an element's difference is off by at most amax * 2^-20 and the root of the sum by
/// four times that: |rough - exact| <= 2 sqrt(exact) d + d^2.
HWY_INLINE float uncertainty(float smallest, float amax) {
  const float d = amax * 0x1p-18f;
  return 4 * (2 * std::sqrt(smallest) * d + d * d) + smallest * 1e-5f;
}

/// All 126 bytes, for weights so far above the range of the tensor scale that f32 would overflow.
HWY_INLINE uint8_t search_all(const float* w, float ws2) {
  uint8_t best = 1;
  double smallest = exact_error(w, best, ws2);
  for (uint8_t byte = 2; byte <= kE4m3MaxByte; ++byte) {
    const double error = exact_error(w, byte, ws2);
    if (error < smallest) {
      smallest = error;
      best = byte;
    }
  }
  return best;
}

/// Pruning. From max(2r, 2^-5) upward the grid of s restricted to |w| <= amax is part of the grid of s/2, which is a
/// byte too: the error is not smaller there and the byte is higher. Downward, as soon as the largest weight alone, cut
/// off at 6 steps, costs more than the smallest error so far, every lower byte costs more still.
HWY_INLINE uint8_t search_block(const float* w, float ws2, const ScaleTable& table) {
  const float amax = block_amax(w);
  const uint8_t start = nvfp4_block_scale(amax, ws2);
  if (amax == 0 || start == kE4m3Nan) return start;

  const float largest = div_rn(amax, ws2);
  if (largest > 0x1p40f) return search_all(w, ws2);
  V u[kVectorsPer16];
  for (int64_t i = 0; i < kVectorsPer16; ++i)
    u[i] = hn::Div(hn::Abs(hn::LoadU(D(), w + i * kLanes)), hn::Set(D(), ws2));
  const float above = std::fmax(2 * div_rn(amax, mul_rn(kE2m1Max, ws2)), 0x1p-5f);

  float error[kE4m3MaxByte + 1];
  int last = start;
  float smallest = error[start] = rough_error(u, table.value[start], table.reciprocal[start]);
  for (int byte = start + 1; byte <= kE4m3MaxByte && table.value[static_cast<size_t>(byte)] <= above; ++byte) {
    const auto i = static_cast<size_t>(byte);
    error[byte] = rough_error(u, table.value[i], table.reciprocal[i]);
    smallest = std::fmin(smallest, error[byte]);
    last = byte;
  }
  int first = start;
  for (int byte = start - 1; byte >= 1; --byte) {
    const auto i = static_cast<size_t>(byte);
    const float cut = largest - kE2m1Max * table.value[i];
    if (cut > 0 && cut * cut > smallest + uncertainty(smallest, largest)) break;
    error[byte] = rough_error(u, table.value[i], table.reciprocal[i]);
    smallest = std::fmin(smallest, error[byte]);
    first = byte;
  }

  const float limit = smallest + uncertainty(smallest, largest);
  int best = -1;
  double best_error = -1;  // of `best`; below 0 as long as it was not needed
  for (int byte = first; byte <= last; ++byte) {
    if (!(error[byte] <= limit)) continue;
    if (best < 0) {
      best = byte;
      continue;
    }
    if (best_error < 0) best_error = exact_error(w, static_cast<uint8_t>(best), ws2);
    const double candidate = exact_error(w, static_cast<uint8_t>(byte), ws2);
    if (candidate < best_error) {
      best = byte;
      best_error = candidate;
    }
  }
  return static_cast<uint8_t>(best);
}

void search_row(const float* w, int64_t blocks, float ws2, uint8_t* scales) {
  static const ScaleTable table;
  for (int64_t b = 0; b < blocks; ++b) scales[b] = search_block(w + b * kBlock, ws2, table);
}

void four_over_six_row(const float* w, int64_t blocks, float ws2, uint8_t* scales) {
  for (int64_t b = 0; b < blocks; ++b) {
    const float* block = w + b * kBlock;
    const float amax = block_amax(block);
    const uint8_t at_6 = nvfp4_block_scale(amax, ws2), at_4 = nvfp4_block_scale_at_4(amax, ws2);
    scales[b] = at_4 != at_6 && exact_error(block, at_4, ws2) < exact_error(block, at_6, ws2) ? at_4 : at_6;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(search_row);
HWY_EXPORT(four_over_six_row);

}  // namespace

void nvfp4_search_row(const float* w, int64_t blocks, float ws2, uint8_t* scales) {
  HWY_DYNAMIC_DISPATCH(search_row)(w, blocks, ws2, scales);
}

void nvfp4_four_over_six_row(const float* w, int64_t blocks, float ws2, uint8_t* scales) {
  HWY_DYNAMIC_DISPATCH(four_over_six_row)(w, blocks, ws2, scales);
}

}  // namespace nibble::ops
#endif
