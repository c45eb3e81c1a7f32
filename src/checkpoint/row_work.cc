#include "checkpoint/row_work.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "checkpoint/tensor_entry.h"

namespace nibble::checkpoint {

Status RowWork::over_rows(std::string_view name, int64_t rows, uint64_t bytes,
                          const std::function<void(int64_t begin, int64_t end)>& body) {
  constexpr uint64_t kGrainBytes = 4 << 20;
  const uint64_t row_bytes = std::max<uint64_t>(1, bytes / static_cast<uint64_t>(rows));
  const auto grain = static_cast<int64_t>(std::max<uint64_t>(1, kGrainBytes / row_bytes));
  const auto ranges = [&](int64_t begin, int64_t end) {
    if (!options_.cancel.cancelled()) body(begin, end);
  };
  if (options_.pool != nullptr) {
    options_.pool->parallel_for(rows, grain, ranges);
  } else {
    for (int64_t r = 0; r < rows; r += grain) ranges(r, std::min(rows, r + grain));
  }
  if (options_.cancel.cancelled()) return cancelled("loading: stopped at {}", name);
  done_bytes_ += bytes;
  report(options_.progress, std::min(done_bytes_, total_bytes_), total_bytes_, name);
  return {};
}

Status RowWork::check_finite(std::string_view name, const Tensor& matrix, uint64_t bytes, std::string_view file) {
  std::atomic<int64_t> first{INT64_MAX};
  const int64_t columns = matrix.elements() / matrix.dim(0);
  NIBBLE_RETURN_IF_ERROR(over_rows(name, matrix.dim(0), bytes, [&](int64_t begin, int64_t end) {
    const Tensor rows = matrix.rows(begin, end);
    if (!any_special(rows)) return;
    for (int64_t i = 0; i < rows.elements(); ++i) {
      if (!std::isfinite(float_at(rows, i))) return take_minimum(first, begin * columns + i);
    }
  }));
  if (first == INT64_MAX) return {};
  return corrupt("weight not finite: {}[{},{}]: expected a number, got {} ({})", name, first / columns, first % columns,
                 float_at(matrix, first), file)
      .with_hint("the model is broken: nothing computed with this weight would be a number");
}

}  // namespace nibble::checkpoint
