// Angles of rope as kernels compute them: fractions of a turn in fixed point, where a product wraps around exactly and
// no f64 is needed.
#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/numeric.h"

namespace nibble::ops {

/// theta^(-2i/R) radians, the angle of pair i from one position to the next, in units of 2^-64 of a turn. At position p
/// the angle is p times that modulo 2^64, to about p * 2^-53 radians.
inline uint64_t rope_step(int64_t i, int64_t rotary_dim, double theta) {
  constexpr double kTurnsPerRadian = 0.15915494309189535;
  const double turns =
      std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim)) * kTurnsPerRadian;
  return static_cast<uint64_t>((turns - std::floor(turns)) * 0x1p64);
}

struct CosSin {
  float c, s;
};

/// Cosine and sine of an angle in units of 2^-64 of a turn, to 2 ulp or so. Quarter turns are taken out in integers;
/// what is left is at most an eighth.
NIBBLE_HD inline CosSin cos_sin(uint64_t angle) {
  const uint64_t quarters = (angle + (uint64_t{1} << 61)) >> 62;
  const auto rest = static_cast<int64_t>(angle - (quarters << 62));
  const float half_turns = static_cast<float>(rest) * 0x1p-63f;
#ifdef __CUDA_ARCH__
  float c, s;
  sincospif(half_turns, &s, &c);
#else
  const double radians = static_cast<double>(half_turns) * 3.14159265358979323846;
  const auto c = static_cast<float>(std::cos(radians)), s = static_cast<float>(std::sin(radians));
#endif
  switch (quarters & 3) {
    case 0:
      return {c, s};
    case 1:
      return {-s, c};
    case 2:
      return {-c, -s};
    default:
      return {s, -c};
  }
}

}  // namespace nibble::ops
