// RowWork: what is done to the rows of matrices while a checkpoint is loaded, on the pool of the options and with their
// progress. Internal to checkpoint/.
#pragma once

#include <functional>
#include <string_view>

#include "checkpoint/load.h"

namespace nibble::checkpoint {

class RowWork {
 public:
  /// The options outlive this object.
  explicit RowWork(const LoadOptions& options) : options_(options) {}

  /// Progress counts so many bytes more to its end.
  void expect(uint64_t bytes) { total_bytes_ += bytes; }

  /// Runs body(begin, end) over the rows of the tensor `name`, which has `bytes` in its file; `cancelled`.
  Status over_rows(std::string_view name, int64_t rows, uint64_t bytes,
                   const std::function<void(int64_t begin, int64_t end)>& body);

  /// `corrupt`, with the place in `file`, for a matrix with a NaN or an infinity. `bytes` as above.
  Status check_finite(std::string_view name, const Tensor& matrix, uint64_t bytes, std::string_view file);

 private:
  const LoadOptions& options_;
  uint64_t done_bytes_ = 0, total_bytes_ = 0;
};

}  // namespace nibble::checkpoint
