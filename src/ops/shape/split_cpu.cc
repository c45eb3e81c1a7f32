#include <cstring>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "ops/shape/split.h"

namespace nibble::ops {
namespace {

void copy(float* to, const float* from, int64_t n) {
  if (n > 0) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
}

}  // namespace

void split_heads(Context& cx, const Tensor& qg, Tensor& q, Tensor& gate) {
  require_cpu("split_heads", q);
  NIBBLE_CHECK(qg.rank() == 3 && qg.dim(2) % 2 == 0);
  const int64_t rows = qg.dim(0) * qg.dim(1), half = qg.dim(2) / 2;
  NIBBLE_CHECK(q.shape() == Shape({qg.dim(0), qg.dim(1), half}) && gate.shape() == q.shape());
  const float* from = qg.f32();
  float *to_q = q.f32(), *to_gate = gate.f32();
  cx.pool.parallel_for(rows, row_grain(2 * half), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      copy(to_q + r * half, from + 2 * r * half, half);
      copy(to_gate + r * half, from + (2 * r + 1) * half, half);
    }
  });
}

void split_columns(Context& cx, const Tensor& x, std::span<Tensor> parts) {
  NIBBLE_CHECK(x.rank() == 2);
  const int64_t rows = x.dim(0), columns = x.dim(1);
  int64_t offset = 0;
  for (Tensor& part : parts) {
    require_cpu("split_columns", part);
    NIBBLE_CHECK(part.rank() > 0 && part.dim(0) == rows);
    int64_t width = 1;
    for (int i = 1; i < part.rank(); ++i) width *= part.dim(i);
    NIBBLE_CHECK(offset + width <= columns);
    const float* from = x.f32() + offset;
    float* to = part.f32();
    cx.pool.parallel_for(rows, row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) copy(to + t * width, from + t * columns, width);
    });
    offset += width;
  }
  NIBBLE_CHECK(offset == columns);
}

}  // namespace nibble::ops
