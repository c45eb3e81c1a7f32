// Random tensors for models that only have to have the right shape: fast, and the same on every machine and for any
// number of threads, because element i depends on (seed, stream, i) alone.
#pragma once

#include <cstdint>

#include "model/weights.h"

namespace nibble::checkpoint {

/// What a tensor of this kind holds, so that a forward stays finite and decays like a new model's:
///   embedding, linear  symmetric around 0 with standard deviation 0.02, a sum of two uniform bytes
///   conv               the same with 0.2
///   norm               0, which is the identity; gated_norm and dt_bias 1
///   a_log              log of a uniform number in [0.01, 16)
/// Writes elements [begin, end) of tensor `stream`, as f32 or bf16, to `out`. Random values other than a_log's are BF16
/// numbers in either format, so both describe one model.
void fill_random(model::TensorKind kind, DType dtype, uint64_t seed, uint64_t stream, int64_t begin, int64_t end,
                 void* out);

/// The same for NVFP4: uniform random codes (two per byte) and block scales in 0.75..1.375. With kRandomTensorScale the
/// decoded weights have standard deviation 0.02.
void fill_random_codes(uint64_t seed, uint64_t stream, int64_t begin_byte, int64_t end_byte, uint8_t* out);
void fill_random_scales(uint64_t seed, uint64_t stream, int64_t begin_byte, int64_t end_byte, uint8_t* out);
extern const float kRandomTensorScale;

}  // namespace nibble::checkpoint
