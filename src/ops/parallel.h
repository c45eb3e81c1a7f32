// How ops share work between threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace nibble::ops {

/// The number of rows that one thread takes at a time, for rows of `row_cost` elementary steps (an element read and
/// written, or eight multiply-adds). About 10 us of work: less would not pay for waking a thread.
inline int64_t row_grain(int64_t row_cost) {
  constexpr int64_t kRangeCost = 16384;
  return std::max<int64_t>(1, kRangeCost / std::max<int64_t>(1, row_cost));
}

}  // namespace nibble::ops
