// How ops share work between threads. Results never depend on it: what a thread takes is whole rows or whole items.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "tensor/context.h"

namespace nibble::ops {

/// The number of rows that one thread takes at a time, for rows of `row_cost` elementary steps (an element read and
/// written, or eight multiply-adds). About 10 us of work: less would not pay for waking a thread.
inline int64_t row_grain(int64_t row_cost) {
  constexpr int64_t kRangeCost = 16384;
  return std::max<int64_t>(1, kRangeCost / std::max<int64_t>(1, row_cost));
}

/// Calls body(item, scratch) for every item, on as many threads as `item_cost` (steps, as above) makes worthwhile.
/// Calls with the same scratch never overlap. `scratch` is `floats` long, 64-byte aligned, from cx.arena,
/// uninitialised.
template <class Body>
void for_each_item(Context& cx, int64_t items, int64_t item_cost, int64_t floats, const Body& body) {
  const int64_t grain = row_grain(item_cost);
  const int64_t slots = std::min<int64_t>(cx.pool.threads(), (items + grain - 1) / grain);
  Arena::Scope scope(cx.arena);
  const int64_t stride = (floats + 15) / 16 * 16;
  float* const scratch = cx.arena.f32({slots, stride}).f32();
  std::atomic<int64_t> next{0};
  cx.pool.parallel_for(slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) {
      while (true) {
        const int64_t item = next.fetch_add(1, std::memory_order_relaxed);
        if (item >= items) break;
        body(item, scratch + slot * stride);
      }
    }
  });
}

/// sum[n] += what the rows contribute. The rows are cut into blocks by their number alone; body(begin, end, partial)
/// adds what a block contributes to partial[n], and the partial sums are added in the order of the blocks. An empty
/// `sum` means not wanted: body runs all the same. Scratch from cx.arena.
template <class Body>
void sum_over_rows(Context& cx, int64_t rows, int64_t row_cost, int64_t n, const Tensor& sum, const Body& body) {
  constexpr int64_t kBlocks = 128, kSmallest = 16;
  const int64_t block = std::max(kSmallest, (rows + kBlocks - 1) / kBlocks), blocks = (rows + block - 1) / block;
  Arena::Scope scope(cx.arena);
  float* const partial = cx.arena.f32({blocks, n}).f32();
  cx.pool.parallel_for(blocks, row_grain(block * row_cost), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      std::fill_n(partial + b * n, n, 0.0f);
      body(b * block, std::min((b + 1) * block, rows), partial + b * n);
    }
  });
  if (sum.empty()) return;
  float* const total = sum.f32();
  cx.pool.parallel_for(n, row_grain(blocks), [&](int64_t begin, int64_t end) {
    for (int64_t b = 1; b < blocks; ++b) {
      for (int64_t i = begin; i < end; ++i) partial[i] += partial[b * n + i];
    }
    for (int64_t i = begin; i < end && blocks > 0; ++i) total[i] += partial[i];
  });
}

}  // namespace nibble::ops
