// The inner loops of GPTQ over a slab of rows, on the best SIMD target of this machine.
#pragma once

#include <cstdint>

namespace nibble::quantize {

constexpr int64_t kGptqPanel = 32;   // columns that are copied together for a product: two vectors of 16 lanes
constexpr int64_t kGptqDepth = 256;  // rows in one copy, which then stays in the first cache
constexpr int64_t kGptqWidth = 128;  // columns of H per step of the quadratic form

/// One slab: `rows` rows, a multiple of 16, and all K columns in the order of the factor. Columns are rounded in blocks
/// of `block`.
struct GptqSlab {
  int64_t rows = 0, columns = 0, block = 0;
  float* w = nullptr;              // [rows,K]; on return every weight as it was just before it was rounded
  const float* steps = nullptr;    // [K/16,rows]: the step of every block of the tensor
  const int64_t* order = nullptr;  // [K]: the column of the tensor that comes i-th
  const float* upper = nullptr;    // [K,K]
  uint8_t* codes = nullptr;        // [K,rows] in the order of the factor
  float* scratch = nullptr;        // gptq_scratch(rows, block)
};
int64_t gptq_scratch(int64_t rows, int64_t block);
void gptq_slab(const GptqSlab& slab);

/// sum e H e' over `rows` rows of e [rows,K]; scratch of quadratic_scratch(rows) floats.
int64_t quadratic_scratch(int64_t rows);
double quadratic_slab(const float* e, int64_t rows, int64_t columns, const float* hessian, float* scratch);

}  // namespace nibble::quantize
