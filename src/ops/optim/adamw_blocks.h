// The blocks behind adamw.h, on the best SIMD target of this machine.
#pragma once

#include "ops/optim/adamw.h"

namespace nibble::ops {

/// The factors of one step, in f32 and worked out once:
///   w = keep w - rate m / (sqrt(v) root + eps)
struct AdamWJob {
  AdamWJob(const AdamW& options, const RandomKey& key, const AdamWParameter& parameter);

  AdamWParameter parameter;
  RandomKey key;
  int64_t n;
  float clip, beta1, beta2, one_minus_beta1, one_minus_beta2;
  float keep;  // 1 - lr * weight_decay
  float rate;  // lr / (1 - beta1^t)
  float root;  // 1 / sqrt(1 - beta2^t)
  float eps;
};

/// Blocks [begin, end) of 256 elements.
void adamw_blocks(const AdamWJob& job, int64_t begin, int64_t end);

}  // namespace nibble::ops
