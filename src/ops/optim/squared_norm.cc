#include "ops/optim/squared_norm.h"

#include <algorithm>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "tensor/numeric.h"

namespace nibble::ops {
namespace {

constexpr int64_t kBlock = 4096, kChains = 16;

template <class Word, class Decode>
float block_sum(const Word* x, int64_t n, Decode decode) {
  float chains[kChains] = {};
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains) {
    for (int64_t c = 0; c < kChains; ++c) {
      const float value = decode(x[i + c]);
      chains[c] += value * value;
    }
  }
  for (; i < n; ++i) chains[i % kChains] += decode(x[i]) * decode(x[i]);
  for (int64_t width = kChains / 2; width > 0; width /= 2) {
    for (int64_t c = 0; c < width; ++c) chains[c] += chains[c + width];
  }
  return chains[0];
}

double tree_sum(const float* x, int64_t n) {
  if (n == 0) return 0;
  return n == 1 ? static_cast<double>(x[0]) : tree_sum(x, n / 2) + tree_sum(x + n / 2, n - n / 2);
}

}  // namespace

double squared_norm(Context& cx, const Tensor& x) {
  require_cpu("squared_norm", x);
  NIBBLE_CHECK(x.dtype() == DType::f32 || x.dtype() == DType::bf16);
  const int64_t n = x.elements(), blocks = (n + kBlock - 1) / kBlock;
  const Arena::Scope scope(cx.arena);
  struct Job {
    const Tensor& x;
    int64_t n;
    float* partial;
  } const job{x, n, cx.arena.f32({blocks}).f32()};
  cx.pool.parallel_for(blocks, row_grain(kBlock), [&job](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kBlock, count = std::min(kBlock, job.n - first);
      job.partial[b] = job.x.dtype() == DType::f32
                           ? block_sum(job.x.f32() + first, count, [](float v) { return v; })
                           : block_sum(job.x.bf16() + first, count, [](uint16_t v) { return bf16_to_f32(v); });
    }
  });
  return tree_sum(job.partial, blocks);
}

}  // namespace nibble::ops
