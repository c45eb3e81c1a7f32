// What stands in for the *_cuda files in a build without CUDA; see tensor/dispatch.h.
#include "ops/attention/gated_attention_backends.h"
#include "tensor/dispatch.h"

namespace nibble::ops {

// clang-format off
void gated_attention_cuda(Context&, const Batch&, const Tensor&, const Tensor&, const Tensor&, const GatedAttentionWeights&, Tensor&, Tensor&, Tensor&) { unsupported_device("gated_attention"); }
// clang-format on

}  // namespace nibble::ops
