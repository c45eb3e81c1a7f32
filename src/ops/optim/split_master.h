// Split master: an f32 weight in four bytes of which the upper two are the BF16 weight that the model computes with.
//   hi = (bits(w) + 0x8000) >> 16                                    BF16, rounded half up
//   lo = bits(w) & 0xffff
//   bits(w) = (hi << 16) + lo - (lo & 0x8000 ? 0x10000 : 0)
// A bijection over the finite f32. Rounding to nearest even would not be one: on exact ties two weights would share
// (hi, lo). hi differs from it on those ties only. domain: |w| < 3.38e38, above which hi is infinite.
#pragma once

#include "tensor/numeric.h"

namespace nibble::ops {

NIBBLE_HD inline uint16_t split_hi(float w) {
  return static_cast<uint16_t>((f32_bits(w) + 0x8000) >> 16);
}

NIBBLE_HD inline uint16_t split_lo(float w) {
  return static_cast<uint16_t>(f32_bits(w));
}

NIBBLE_HD inline float split_join(uint16_t hi, uint16_t lo) {
  return f32_from_bits((static_cast<uint32_t>(hi) << 16) + lo - ((lo & 0x8000u) << 1));
}

}  // namespace nibble::ops
