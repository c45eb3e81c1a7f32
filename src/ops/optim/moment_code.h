// 8-bit optimizer moments: blocks of 256 along the flat tensor, one f32 absmax per block, one code per element;
// value = fl(code value * absmax). The code is the dynamic map of bitsandbytes and torchao, 256 ascending values each:
//   signed   (first moment)   {0, 1} and ±10^(i-6) * (0.1 + 0.9 (j + 1/2) / 2^i)    for i = 0..6, 0 <= j < 2^i
//   unsigned (second moment)  {0, 1} and  10^(i-6) * (0.1 + 0.9 (j + 1/2) / 2^(i+1)) for i = 0..6, 0 <= j < 2^(i+1)
// An element takes the code nearest to fl(x / absmax), the lower one when it lies on a midpoint.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tensor/numeric.h"

namespace nibble::ops {

constexpr int64_t kMomentBlock = 256;

struct MomentCode {
  std::array<float, 256> value{};
  std::array<float, 256> midpoint{};  // between value[i] and value[i + 1]; the last is infinite

  /// The code nearest to x, |x| <= 1. No two midpoints have the same upper 16 bits, so these decide up to one of them.
  uint8_t nearest(float x) const {
    const uint32_t bits = f32_bits(x), magnitude = (bits & 0x7FFFFFFF) >> 16;
    const uint32_t bucket = std::min(std::max(magnitude, kFirst) - kFirst, kBuckets - 1);
    const uint8_t code = lowest[(bits >> 31) * kBuckets + bucket];
    return static_cast<uint8_t>(code + (x > midpoint[code]));
  }

  static constexpr uint32_t kFirst = 0x3400, kBuckets = 0x3F81 - kFirst;  // from 2^-23, below every midpoint, to 1
  std::array<uint8_t, size_t{2} * kBuckets> lowest{};  // the code of the lowest x of a bucket; negative x behind
};

const MomentCode& signed_moment_code();    // value[127] = 0
const MomentCode& unsigned_moment_code();  // value[0] = 0

/// n <= 256 elements of one block, both ways. A block of zeros has absmax 0. domain of encoding: x finite.
/// The unsigned encoding, of x >= 0, gives a non-zero element never code 0, but the smallest positive one: a second
/// moment of 0 under a first moment that is not would make the update explode.
void decode_moment(const MomentCode& code, const uint8_t* codes, float absmax, int64_t n, float* x);
float encode_signed_moment(const float* x, int64_t n, uint8_t* codes);
float encode_unsigned_moment(const float* x, int64_t n, uint8_t* codes);

}  // namespace nibble::ops
