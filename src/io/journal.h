// Journal: a JSON Lines file that grows line by line and outlives its writer. After a kill at any moment it holds every
// line that was appended, and at most a torn one behind them, which the next writer cuts off.
#pragma once

#include <functional>
#include <mutex>

#include "base/file.h"
#include "io/json.h"

namespace nibble {

/// Thread-safe after it is opened. One writer at a time, in this process or any.
class Journal {
 public:
  enum class Mode : uint8_t {
    fresh,   // a file that is there is `invalid_argument`, with the hint to resume
    resume,  // the lines of a file that is there are read first
  };
  /// The first line is `header`: what the work is made of. `invalid_argument` where a file was begun with another one;
  /// the message names the first key that differs. `each` sees every later line in order, with its offset.
  static Result<Journal> open(const Path& path, const Json& header, Mode mode,
                              const std::function<Status(const Json& line, uint64_t offset)>& each = {});

  /// Returns the line's offset when it is on the disk.
  Result<uint64_t> append(const Json& line);

  /// The line at an offset that `each` or append() gave.
  Result<Json> read(uint64_t offset) const;

 private:
  Journal(Path path, AppendFile file, uint64_t size)
      : path_(std::move(path)), file_(std::move(file)), size_(size), mutex_(std::make_unique<std::mutex>()) {}

  Path path_;
  AppendFile file_;
  uint64_t size_;
  std::unique_ptr<std::mutex> mutex_;
};

}  // namespace nibble
