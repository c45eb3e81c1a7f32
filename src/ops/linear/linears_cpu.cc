#include "ops/activation/swiglu.h"
#include "ops/linear/linears_backends.h"

namespace nibble::ops {

void linears_cpu(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs) {
  for (const LinearOutput& o : outputs) {
    Tensor y = o.y;
    linear(cx, x, *o.weight, y);
  }
}

void linear_swiglu_cpu(Context& cx, const Tensor& x, const Linear& gate, const Linear& up, Tensor& y) {
  const Arena::Scope scope(cx.arena);
  Tensor g = cx.arena.f32(y.shape());
  linear(cx, x, gate, g);
  linear(cx, x, up, y);
  swiglu(cx, g, y, y);
}

Tensor inputs_of_cpu(Context& cx, int64_t T, std::span<const Linear* const> readers) {
  return cx.arena.f32({T, readers[0]->in});
}

}  // namespace nibble::ops
