// A folder under construction that survives the end of its process: OUT.partial beside OUT.
//
//   OUT.partial/job     the key of the job it belongs to
//   OUT.partial/lock    held while a process works on it
//   OUT.partial/model/  what becomes OUT
//   OUT.partial/tensors what was done to the tensors in it
//   OUT.partial/work/   what else the job itself reads: solved layers
//
// The same command finds what an earlier run left and goes on. Files appear in it only complete (OutputFile), so
// whatever is there can be used.
#pragma once

#include <memory>
#include <string>

#include "base/file.h"

namespace nibble::quantize {

class PartialFolder {
 public:
  /// `key` stands for everything that the bytes of the output depend on. What another job left is removed, with a line
  /// in the log. `invalid_argument` when `output` is there and not empty; `unavailable` while another process works on
  /// it.
  static Result<PartialFolder> open(const Path& output, const std::string& key);
  PartialFolder(PartialFolder&&) noexcept;
  PartialFolder& operator=(PartialFolder&&) noexcept;
  /// Without commit(): stays if it holds weights or work to go on with, and is removed otherwise.
  ~PartialFolder();

  const Path& path() const { return model_; }  // becomes the output
  const Path& work() const { return work_; }
  Path records() const { return root_ / "tensors"; }
  bool resumed() const { return resumed_; }  // an earlier run of the same job left something

  /// Gives path() the name of the output in one step and removes the rest. `io` when something stands there by now.
  Status commit();

 private:
  PartialFolder() = default;
  bool holds_something() const;

  Path output_, root_, model_, work_;
  std::unique_ptr<AppendFile> lock_;
  bool resumed_ = false;
};

}  // namespace nibble::quantize
