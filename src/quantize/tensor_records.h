// What was done to each tensor, kept beside a partial output: the report of a run that goes on must not lack the
// tensors of the run before.
#pragma once

#include <map>
#include <string>

#include "base/file.h"
#include "quantize/quantize.h"

namespace nibble::quantize {

class TensorRecords {
 public:
  /// Reads the lines that are there; a line that the end of a process cut off counts as none.
  static Result<TensorRecords> open(const Path& file);

  /// nullptr: the tensor was not finished, or its record was lost.
  const QuantizedTensor* find(const std::string& module) const;
  /// Handed to the operating system at once.
  Status add(const QuantizedTensor& tensor);

 private:
  explicit TensorRecords(AppendFile file) : file_(std::move(file)) {}

  AppendFile file_;
  std::map<std::string, QuantizedTensor> tensors_;
};

}  // namespace nibble::quantize
