// Helpers of tests that run whole models.
#pragma once

#include <map>
#include <string>

#include "checkpoint/load.h"
#include "tensor/context.h"

namespace nibble::test {

inline const Path kSource = NIBBLE_SOURCE_DIR;
inline const Path kGolden = kSource / "tests/golden";
inline const Path kTinyVoice = kSource / "models/tiny-voice";

/// The model of a folder; fails the test where it does not load.
checkpoint::LoadedModel load(const Path& dir);

enum class Scales { tied, untied };  // one tensor scale per fused group, or one per matrix

/// Replaces every quantizable Linear (q,k,v,o, gate,up,down, in_proj_qkv, in_proj_z, out_proj) by its NVFP4 form under
/// strategy max. With `input_amax` (module name -> amax) their inputs are quantized too.
void quantize_in_place(Context& cx, model::Weights& weights, Scales scales,
                       const std::map<std::string, float>* input_amax = nullptr);

/// logits [T,V] of a whole sequence from an empty state, exact numerics.
OwnedTensor logits_of(Context& cx, const model::Weights& weights, std::span<const int32_t> ids);

/// max |a - b|.
double max_abs_difference(std::span<const float> a, std::span<const float> b);

}  // namespace nibble::test
