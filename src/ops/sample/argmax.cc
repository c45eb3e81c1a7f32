#include "ops/sample/argmax.h"

#include "tensor/dispatch.h"

namespace nibble::ops {

void argmax_cpu(Context&, const Tensor& logits, const Tensor& allowed, Tensor& ids, Tensor& position) {
  const int64_t vocabulary = logits.dim(1);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const float* row = logits.f32() + t * vocabulary;
    int32_t best = -1;
    for (int64_t i = 0; i < vocabulary; ++i) {
      if (!allowed.empty() && allowed.u8()[i] == 0) continue;
      if (best < 0 || row[i] > row[best]) best = static_cast<int32_t>(i);
    }
    ids.i32()[t] = best;
    if (!position.empty()) ++position.i32()[t];
  }
}

void argmax_cuda(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& ids, Tensor& position);

void argmax(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& ids, Tensor& position) {
  NIBBLE_CHECK(logits.rank() == 2 && ids.shape() == Shape({logits.dim(0)}));
  NIBBLE_CHECK(allowed.empty() || allowed.shape() == Shape({logits.dim(1)}));
  NIBBLE_CHECK(position.empty() || position.shape() == ids.shape());
  if (logits.dim(0) > 0) NIBBLE_DISPATCH(logits.device(), argmax, cx, logits, allowed, ids, position);
}

}  // namespace nibble::ops
