// Scales of AWQ (Lin et al., arXiv:2306.00978) that fold into what stands before the readers: columns of the readers
// are multiplied by s, the producer of their input is divided by it. A plain NVFP4 file comes out.
//
// The candidates are those of llm-compressor (duo_scaling "both"). Vectors are over the K input channels.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/context.h"

namespace nibble::quantize {

constexpr int kAwqCandidates = 20;

/// Mean over the rows of all readers together of |w| / (a_b + 1e-6), a_b = max |w| of the block of 16.
/// readers [N_i,K] f32 or bf16, those that will be quantized.
std::vector<float> awq_weight_mean(Context& cx, std::span<const Tensor> readers);

/// Candidate 2j is x^r, candidate 2j + 1 is x^r / (w^(1-r) + 1e-4), r = j/9, for x = token mean of |x_k| and
/// w = awq_weight_mean; candidate 0 is the identity. Then s = max(s, 1e-4); s /= sqrt(max s * min s); whatever is not
/// finite becomes 1.
std::vector<float> awq_candidate(std::span<const float> x_mean, std::span<const float> w_mean, int candidate);

/// A norm that multiplies by (1 + w): folded = bf16((1+w)/s - 1) and s_eff = (1+w)/(1+folded), what its readers must be
/// multiplied by: near -1 the rounding of `folded` changes 1 + folded by 10 % and more. Where 1+w or 1+folded is 0 the
/// weight stays and s_eff is 1. norm, folded [K] bf16 or f32, each in its own dtype (f32: no rounding).
std::vector<float> awq_fold_one_plus(const Tensor& norm, std::span<const float> s, const Tensor& folded);

/// A norm that multiplies by w: folded = w/s in its dtype, s_eff = w/folded; where either is 0 the weight stays and
/// s_eff is 1. A vector s shorter than the norm is not tiled: both have the same length.
std::vector<float> awq_fold_plain(const Tensor& norm, std::span<const float> s, const Tensor& folded);

/// out[n,k] = w[n,k] * s[k]; w f32 or bf16, out f32 or bf16 (rounded once); out may alias w of the same dtype.
void awq_scale_columns(Context& cx, const Tensor& w, std::span<const float> s, const Tensor& out);

/// out[n,k] = w[n,k] / s[n]: the rows of a producer that is linear in them.
void awq_divide_rows(Context& cx, const Tensor& w, std::span<const float> s, const Tensor& out);

/// max_k(amax_k / s_k): the input amax of readers behind the fold.
float awq_input_amax(std::span<const float> amax, std::span<const float> s);

}  // namespace nibble::quantize
