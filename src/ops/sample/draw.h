// What sampling computes for one token of one row, on a CPU and on a GPU alike.
//
// A probability is a whole number here: exp(y) in units of 2^-44, rounded down. Whole numbers have one sum whatever the
// order of their addition, so a GPU's many threads keep and draw the ids that a CPU's loop does. What this rounds away
// is below 2^-25 of all probability for up to 2^19 ids.
#pragma once

#include "base/rng.h"
#include "tensor/numeric.h"

namespace nibble::ops {

/// How the next id of a row is chosen. Plain bytes, in the memory of the op's device.
struct SampleRule {
  float temperature = 0;  // 0: the likeliest, ties to the lowest id
  float top_p = 1;        // (0,1]
  int32_t top_k = 0;      // 0: off
  float log_min_p = -INFINITY;
  float presence = 0, frequency = 0, repetition = 1;  // of what row `seen` of the table says
  int32_t seen = -1;                                  // -1: no penalties
  uint64_t seed = 0, position = 0;                    // of the draw, which is that of philox(seed, position)
};

/// Entries of the table of what was seen: this flag, and below it how often an id is in the output.
constexpr uint16_t kSeenInPrompt = 0x8000;

/// Repetition looks at prompt and output, presence and frequency at the output alone, as in vLLM.
NIBBLE_HD inline float penalised(float x, const SampleRule& r, bool seen, int in_output) {
  if (!seen) return x;
  if (r.repetition != 1) x = x > 0 ? div_rn(x, r.repetition) : mul_rn(x, r.repetition);
  if (in_output > 0) x = add_rn(x, -add_rn(r.presence, mul_rn(r.frequency, static_cast<float>(in_output))));
  return x;
}

/// The logarithm of an id's probability over that of the likeliest.
NIBBLE_HD inline float log_share(float x, float best, const SampleRule& r) {
  return div_rn(add_rn(x, -best), r.temperature);
}
/// Whether an id is among those that are drawn from, before top_k and top_p: likelier than 2^-44 of the likeliest, and
/// p >= min_p * p_max, said in logits.
NIBBLE_HD inline bool is_candidate(float x, float best, const SampleRule& r) {
  return log_share(x, best, r) > -30.5f && x >= add_rn(best, mul_rn(r.temperature, r.log_min_p));
}

constexpr int kWeightBits = 44;

/// exp(y) in units of 2^-44 for y in (-30.5, 0], within 2^-22 of its value.
NIBBLE_HD inline uint64_t sample_weight(float y) {
  const int n = static_cast<int>(add_rn(mul_rn(y, 1.44269504f), -0.5f));
  const auto whole = static_cast<float>(n);
  // ln 2 in two parts, the first short enough for an exact product (Cody and Waite).
  const float r = add_rn(add_rn(y, -mul_rn(whole, 0.693359375f)), mul_rn(whole, 2.12194440e-4f));
  float e = 1.0f / 5040;
  constexpr float kTaylor[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (const float c : kTaylor) e = add_rn(mul_rn(e, r), c);
  const auto mantissa = static_cast<uint64_t>(mul_rn(e, 0x1p24f));
  const int shift = kWeightBits - 24 + n;
  return shift >= 0 ? mantissa << shift : mantissa >> -shift;
}

/// What the likeliest ids must have together of `total` for top_p; at least 1.
NIBBLE_HD inline uint64_t weight_for_top_p(float top_p, uint64_t total) {
  const double share = static_cast<double>(top_p) * static_cast<double>(total);
  auto need = static_cast<uint64_t>(share);
  if (static_cast<double>(need) < share) ++need;
  need = need > total ? total : need;
  return need < 1 ? 1 : need;
}

/// A number in [0, total): the id is the first with more weight than that up to and with it.
NIBBLE_HD inline uint64_t draw_below(const SampleRule& r, uint64_t total) {
  const auto bits = philox(r.seed, r.position);
  const uint64_t u = static_cast<uint64_t>(bits[0]) << 32 | bits[1];
#ifdef __CUDA_ARCH__
  return __umul64hi(u, total);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(u) * total) >> 64);
#endif
}

/// Ascending where logits descend; -0 and 0 are one.
NIBBLE_HD inline uint32_t likelihood_order(float x) {
  const uint32_t bits = f32_bits(add_rn(x, 0.0f));
  return (bits >> 31) != 0 ? bits : ~bits & 0x7FFFFFFF;
}
NIBBLE_HD inline float logit_of_order(uint32_t order) {
  return f32_from_bits((order >> 31) != 0 ? order : ~order & 0x7FFFFFFF);
}

}  // namespace nibble::ops
