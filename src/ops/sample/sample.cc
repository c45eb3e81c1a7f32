#include "ops/sample/sample_backends.h"
#include "tensor/dispatch.h"

namespace nibble::ops {

void sample(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen, Tensor& ids,
            Tensor& position) {
  NIBBLE_CHECK(logits.rank() == 2 && logits.dim(1) <= int64_t{1} << 19 && ids.shape() == Shape({logits.dim(0)}));
  NIBBLE_CHECK(allowed.empty() || allowed.shape() == Shape({logits.dim(1)}));
  NIBBLE_CHECK(rules.bytes() == static_cast<size_t>(logits.dim(0)) * sizeof(SampleRule));
  NIBBLE_CHECK(seen.empty() || seen.dim(1) == logits.dim(1));
  NIBBLE_CHECK(position.empty() || position.shape() == ids.shape());
  if (logits.dim(0) > 0) NIBBLE_DISPATCH(logits.device(), sample, cx, logits, allowed, rules, seen, ids, position);
}

}  // namespace nibble::ops
