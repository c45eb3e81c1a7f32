#include <algorithm>
#include <cstring>

#include "ops/backend.h"
#include "ops/embed/embed.h"
#include "ops/parallel.h"
#include "tensor/numeric.h"

namespace nibble::ops {

void embed(Context& cx, std::span<const int32_t> ids, const Tensor& table, Tensor& y) {
  require_cpu("embed", y);
  NIBBLE_CHECK(table.rank() == 2 && (table.dtype() == DType::f32 || table.dtype() == DType::bf16));
  const auto rows = static_cast<int64_t>(ids.size());
  const int64_t vocabulary = table.dim(0), hidden = table.dim(1);
  NIBBLE_CHECK(y.shape() == Shape({rows, hidden}));
  float* out = y.f32();
  cx.pool.parallel_for(rows, row_grain(hidden), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t id = ids[static_cast<size_t>(t)];
      NIBBLE_CHECK(0 <= id && id < vocabulary);
      float* row = out + t * hidden;
      if (table.dtype() == DType::f32) {
        std::memcpy(row, table.f32() + id * hidden, static_cast<size_t>(hidden) * sizeof(float));
        continue;
      }
      // A mapped table need not be aligned, so its elements are copied out and not dereferenced.
      const auto* source = static_cast<const std::byte*>(table.raw()) + 2 * id * hidden;
      for (int64_t i = 0; i < hidden; ++i) {
        uint16_t bits;
        std::memcpy(&bits, source + 2 * i, sizeof bits);
        row[i] = bf16_to_f32(bits);
      }
    }
  });
}

void embed_vjp(Context& cx, const Tensor& dy, std::span<const int32_t> ids, Tensor& dtable) {
  require_cpu("embed_vjp", dtable);
  NIBBLE_CHECK(dtable.rank() == 2);
  const auto rows = static_cast<int64_t>(ids.size());
  const int64_t vocabulary = dtable.dim(0), hidden = dtable.dim(1);
  NIBBLE_CHECK(dy.shape() == Shape({rows, hidden}));
  for (const int32_t id : ids) NIBBLE_CHECK(0 <= id && id < vocabulary);
  const float* from = dy.f32();
  float* to = dtable.f32();
  // A thread takes columns, so that each sum is in the order of the tokens.
  constexpr int64_t kColumns = 64;
  const int64_t slices = (hidden + kColumns - 1) / kColumns;
  cx.pool.parallel_for(slices, row_grain(rows * kColumns), [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kColumns, last = std::min(end * kColumns, hidden);
    for (int64_t t = 0; t < rows; ++t) {
      const float* source = from + t * hidden;
      float* row = to + ids[static_cast<size_t>(t)] * hidden;
      for (int64_t i = first; i < last; ++i) row[i] += source[i];
    }
  });
}

}  // namespace nibble::ops
