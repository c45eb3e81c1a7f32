// How quantizers read their source: rows of f32, bf16 or f16 at any alignment, as f32.
#pragma once

#include <cstring>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "tensor/numeric.h"

namespace nibble::ops {

template <class Word, class Decode>
inline void read_words(const std::byte* source, int64_t n, float* out, Decode decode) {
  for (int64_t i = 0; i < n; ++i) {
    Word word;
    std::memcpy(&word, source + static_cast<size_t>(i) * sizeof(Word), sizeof(Word));
    out[i] = decode(word);
  }
}

// Elements [begin, begin + n) in row-major order as f32.
inline void read_f32(const Tensor& w, int64_t begin, int64_t n, float* out) {
  const auto* source = static_cast<const std::byte*>(w.raw()) + static_cast<size_t>(begin) * size_of(w.dtype());
  switch (w.dtype()) {
    case DType::f32:
      std::memcpy(out, source, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::bf16:
      return read_words<uint16_t>(source, n, out, bf16_to_f32);
    default:
      return read_words<uint16_t>(source, n, out, f16_to_f32);
  }
}

// Calls body(row, its elements as f32) for every row.
template <class Body>
inline void for_each_row(Context& cx, const Tensor& w, int64_t steps_per_element, const Body& body) {
  const int64_t columns = w.dim(1);
  for_each_item(cx, w.dim(0), steps_per_element * columns, columns, [&](int64_t row, float* scratch) {
    read_f32(w, row * columns, columns, scratch);
    body(row, scratch);
  });
}

inline void check_quant_source(const char* op, const Tensor& w) {
  require_cpu(op, w);
  NIBBLE_CHECK(w.rank() == 2);
  NIBBLE_CHECK(w.dtype() == DType::f32 || w.dtype() == DType::bf16 || w.dtype() == DType::f16);
}

}  // namespace nibble::ops
