#include "ops/linear/linears.h"

#include "ops/linear/linears_backends.h"
#include "ops/linear/nvfp4_fragment.h"
#include "tensor/dispatch.h"

namespace nibble::ops {

void linears(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs) {
  NIBBLE_CHECK(!outputs.empty() && outputs.size() <= 4 && x.rank() == 2);
  for (const LinearOutput& o : outputs) {
    NIBBLE_CHECK(x.dtype() == DType::u8 || o.weight->in == x.dim(1));
    NIBBLE_CHECK(o.y.shape() == Shape({x.dim(0), o.weight->out}) && o.y.device() == x.device());
  }
  if (x.dim(0) > 0) NIBBLE_DISPATCH(x.device(), linears, cx, x, outputs);
}

void linear_swiglu(Context& cx, const Tensor& x, const Linear& gate, const Linear& up, Tensor& y) {
  NIBBLE_CHECK(x.rank() == 2 && up.in == gate.in && up.out == gate.out);
  NIBBLE_CHECK(x.dtype() == DType::u8 || x.dim(1) == gate.in);
  NIBBLE_CHECK(y.dtype() == DType::u8 || y.shape() == Shape({x.dim(0), gate.out}));
  NIBBLE_CHECK(y.device() == x.device());
  if (x.dim(0) > 0) NIBBLE_DISPATCH(x.device(), linear_swiglu, cx, x, gate, up, y);
}

Tensor inputs_of(Context& cx, int64_t T, std::initializer_list<const Linear*> readers) {
  for (const Linear* w : readers) NIBBLE_CHECK(w->in == (*readers.begin())->in);
  return NIBBLE_DISPATCH(cx.device, inputs_of, cx, T, {readers.begin(), readers.size()});
}

size_t linear_device_bytes(const Linear& w) {
  if (w.format == WeightFormat::nvfp4) {
    return static_cast<size_t>(tiles_of(w.out) * pairs_of(w.in) * (kPairCodeBytes + kPairScaleBytes));
  }
  return w.weight.bytes() + (w.channel_scale.empty() ? 0 : w.channel_scale.bytes());
}

}  // namespace nibble::ops
