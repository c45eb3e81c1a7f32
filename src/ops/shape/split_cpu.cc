#include <cstring>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "ops/shape/split.h"

namespace nibble::ops {
namespace {

void copy(float* to, const float* from, int64_t n) {
  if (n > 0) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
}

/// copy_halves(row of qg, row of q, row of gate, D) for every head of every token.
template <class Copy>
void for_heads(Context& cx, const Tensor& qg, const Tensor& q, const Tensor& gate, const Copy& copy_halves) {
  NIBBLE_CHECK(qg.rank() == 3 && qg.dim(2) % 2 == 0);
  const int64_t rows = qg.dim(0) * qg.dim(1), half = qg.dim(2) / 2;
  NIBBLE_CHECK(q.shape() == Shape({qg.dim(0), qg.dim(1), half}) && gate.shape() == q.shape());
  float *joined = qg.f32(), *first = q.f32(), *second = gate.f32();
  cx.pool.parallel_for(rows, row_grain(2 * half), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      copy_halves(joined + 2 * r * half, first + r * half, second + r * half, half);
    }
  });
}

/// copy_part(place of the part in a row of x, row of the part, columns) for every part and row.
template <class Copy>
void for_columns(Context& cx, const Tensor& x, std::span<const Tensor> parts, const Copy& copy_part) {
  NIBBLE_CHECK(x.rank() == 2);
  const int64_t rows = x.dim(0), columns = x.dim(1);
  int64_t offset = 0;
  for (const Tensor& part : parts) {
    NIBBLE_CHECK(part.rank() > 0 && part.dim(0) == rows);
    int64_t width = 1;
    for (int i = 1; i < part.rank(); ++i) width *= part.dim(i);
    NIBBLE_CHECK(offset + width <= columns);
    float *joined = x.f32() + offset, *separate = part.f32();
    cx.pool.parallel_for(rows, row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) copy_part(joined + t * columns, separate + t * width, width);
    });
    offset += width;
  }
  NIBBLE_CHECK(offset == columns);
}

}  // namespace

void split_heads(Context& cx, const Tensor& qg, Tensor& q, Tensor& gate) {
  require_cpu("split_heads", q);
  for_heads(cx, qg, q, gate, [](const float* joined, float* first, float* second, int64_t half) {
    copy(first, joined, half);
    copy(second, joined + half, half);
  });
}

void join_heads(Context& cx, const Tensor& q, const Tensor& gate, Tensor& qg) {
  require_cpu("join_heads", qg);
  for_heads(cx, qg, q, gate, [](float* joined, const float* first, const float* second, int64_t half) {
    copy(joined, first, half);
    copy(joined + half, second, half);
  });
}

void split_columns(Context& cx, const Tensor& x, std::span<Tensor> parts) {
  require_cpu("split_columns", x);
  for_columns(cx, x, parts, [](const float* joined, float* part, int64_t width) { copy(part, joined, width); });
}

void join_columns(Context& cx, std::span<const Tensor> parts, Tensor& x) {
  require_cpu("join_columns", x);
  for_columns(cx, x, parts, [](float* joined, const float* part, int64_t width) { copy(joined, part, width); });
}

}  // namespace nibble::ops
