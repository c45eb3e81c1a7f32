#include "ops/embed/embed_ids.h"

#include "ops/embed/embed.h"
#include "tensor/dispatch.h"

namespace nibble::ops {

void embed_ids_cpu(Context& cx, const Tensor& ids, const Tensor& table, Tensor& y) {
  embed(cx, {ids.i32(), static_cast<size_t>(ids.elements())}, table, y);
}

void embed_ids_cuda(Context& cx, const Tensor& ids, const Tensor& table, Tensor& y);

void embed_ids(Context& cx, const Tensor& ids, const Tensor& table, Tensor& y) {
  NIBBLE_CHECK(y.shape() == Shape({ids.elements(), table.dim(1)}));
  if (ids.elements() > 0) NIBBLE_DISPATCH(y.device(), embed_ids, cx, ids, table, y);
}

}  // namespace nibble::ops
