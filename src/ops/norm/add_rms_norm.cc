#include "ops/norm/add_rms_norm.h"

#include "ops/activation/add.h"
#include "ops/norm/rms_norm.h"
#include "tensor/dispatch.h"

namespace nibble::ops {

void add_rms_norm_cpu(Context& cx, const Tensor& y, const Tensor& w, float eps, Tensor& h, Tensor& n) {
  if (!y.empty()) add(cx, y, h);
  rms_norm(cx, h, w, eps, Gain::one_plus, n);
}

void add_rms_norm_cuda(Context& cx, const Tensor& y, const Tensor& w, float eps, Tensor& h, Tensor& n);

void add_rms_norm(Context& cx, const Tensor& y, const Tensor& w, float eps, Tensor& h, Tensor& n) {
  NIBBLE_CHECK(h.rank() == 2 && (n.dtype() == DType::u8 || n.shape() == h.shape()) &&
               (y.empty() || y.shape() == h.shape()));
  NIBBLE_CHECK(w.shape() == Shape({h.dim(1)}) && h.dtype() == DType::f32);
  if (h.dim(0) > 0) NIBBLE_DISPATCH(h.device(), add_rms_norm, cx, y, w, eps, h, n);
}

}  // namespace nibble::ops
