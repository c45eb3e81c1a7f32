// The random bits of training: a function of what is rounded, not of the order in which it happens, so a resumed run,
// another number of threads or another number of machines draws the same bits.
#pragma once

#include <array>

#include "base/rng.h"
#include "tensor/numeric.h"

namespace nibble::ops {

/// What the bits are for; two roundings of one element in one step never share them.
enum class RandomPurpose : uint32_t { weight, first_moment, second_moment, gradient };

/// Names the draw: seed of the run, optimizer step, micro-step inside it (< 256), tensor (< 2^30).
struct RandomKey {
  uint64_t seed = 0;
  uint64_t step = 0;  // < 2^24
  uint32_t micro_step = 0;
  uint32_t tensor_id = 0;
};

constexpr int64_t kRandomGroup = 8;  // elements that one call of Philox serves

/// 16 uniform bits for each of the elements 8*group … 8*group + 7 of a flat tensor: Philox4x32-10 with key = seed and
/// counter = (group lo, group hi, step*256 + micro_step, tensor_id*4 + purpose); element 2j takes the low half of
/// word j, element 2j + 1 the high half.
inline std::array<uint16_t, kRandomGroup> random16(const RandomKey& key, RandomPurpose purpose, uint64_t group) {
  const auto low = static_cast<uint32_t>(key.step * 256 + key.micro_step);
  const uint64_t high = key.tensor_id * 4 + static_cast<uint32_t>(purpose);
  const std::array<uint32_t, 4> words = philox(key.seed, group, high << 32 | low);
  std::array<uint16_t, kRandomGroup> bits{};
  for (size_t j = 0; j < 4; ++j) {
    bits[2 * j] = static_cast<uint16_t>(words[j]);
    bits[2 * j + 1] = static_cast<uint16_t>(words[j] >> 16);
  }
  return bits;
}

/// Stochastic rounding to BF16: one of the two neighbours, so that the mean over r16 is x itself. NaN and infinity
/// pass through; a finite x beyond the largest BF16 may become infinite.
NIBBLE_HD inline uint16_t stochastic_bf16(float x, uint16_t r16) {
  const uint32_t bits = f32_bits(x);
  if ((bits & 0x7F800000) == 0x7F800000) return f32_to_bf16(x);
  return static_cast<uint16_t>((bits + r16) >> 16);
}

}  // namespace nibble::ops
