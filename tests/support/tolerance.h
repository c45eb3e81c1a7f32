// How far a kernel may be from its FP64 oracle, by name and with the reason. If a test fails, fix the kernel.
#pragma once

#include <cmath>
#include <cstdint>

namespace nibble::test {

/// An element passes when |actual - expected| <= relative * (|expected| + rms(expected)). The second term is there for
/// elements near zero, which inherit the rounding of their larger neighbours.
struct Tolerance {
  const char* name;
  double relative;
};

/// Copies and conversions.
constexpr Tolerance kExact{"exact", 0};

/// Elementwise f32 work and sums of at most a few thousand terms: some ten roundings of 2^-24, twice that for exp.
/// The value is that of CTranslate2's operator tests.
constexpr Tolerance kF32Op{"f32_op", 1e-5};

/// The delta rule carries rounding through its state for up to 200 tokens and, chunked, through a triangular inverse;
/// the specification asks for 1e-4 in f32.
constexpr Tolerance kGatedDelta{"gated_delta", 1e-4};

/// The chunked delta rule with BF16 operands. Of a whole tensor, as relative L2 error: some ten roundings of 2^-9 on
/// the way, of which an emulation in f64 gives .003 to .0054 (FLA's tests ask for .005). Of an element ten times more:
/// where the state holds next to nothing, y is a small difference <q,k> times v, which the norm behind it scales up.
constexpr Tolerance kGatedDeltaBf16{"gated_delta_bf16", 0.15};
constexpr double kGatedDeltaBf16L2 = 6e-3;

/// The backward of attention multiplies differences dP - mean(dP), which cancel, with probabilities that carry the
/// rounding of scores near 20, and sums T * nh/nkv (20,000 in the tests) of them. Measured: 2e-5.
constexpr Tolerance kAttentionVjp{"attention_vjp", 5e-5};

/// On a GPU q, k and the weights of softmax are rounded to BF16 (2^-9 each); the oracle rounds q and k likewise, so
/// what is left are ties that fall the other way, the weights, and the result's own rounding.
constexpr Tolerance kGatedAttentionBf16{"gated_attention_bf16", 1.5e-2};

/// One rounding to BF16, 2^-9 of the number, and now and then a tie that falls the other way.
constexpr Tolerance kBf16Rounding{"bf16_rounding", 0x1p-8};

/// f64 sums of f64 exponentials.
constexpr Tolerance kF64Sum{"f64_sum", 1e-12};

/// Logits of a whole model whose activations are BF16 between ops, beside f32: for tiny-voice (logits up to 30) half
/// the margin of .35 that greedy replies must have to be compared.
constexpr double kBf16Logits = 0.175;
/// For random models as relative L2 error. On a CPU, where only the inputs of products are rounded, it is .004 to .075;
/// a GPU rounds what comes out of products, too, and in chunks of the delta rule what goes into them: 1 to 2.8 times as
/// much over the cases of a model on an H200.
constexpr double kBf16Relative = 0.15;
constexpr double kBf16OfCpu = 4;

/// For a dot product of k terms in f32, in any order: |error| <= k * 2^-24 * sum|x w| to first order (Higham, "Accuracy
/// and Stability of Numerical Algorithms", 3.1), and one rounding more for the factor behind it.
inline double linear_bound(int64_t k, double sum_of_magnitudes) {
  return static_cast<double>(k + 1) * 0x1p-24 * sum_of_magnitudes;
}

}  // namespace nibble::test
