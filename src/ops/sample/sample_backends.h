// What sample.cc chooses from.
#pragma once

#include "ops/sample/sample.h"

namespace nibble::ops {

void sample_cpu(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen, Tensor& ids,
                Tensor& position);
void sample_cuda(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen, Tensor& ids,
                 Tensor& position);
/// The latter as GPUs without clusters of blocks do it, on any.
void sample_single_cuda(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen,
                        Tensor& ids, Tensor& position);

}  // namespace nibble::ops
