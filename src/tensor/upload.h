// Upload: from memory of this machine, such as a mapped file, to a GPU as fast as the machine reads it: several threads
// copy into pinned memory while what they copied before is on its way.
#pragma once

#include <memory>

#include "tensor/context.h"

namespace nibble {

class Upload {
 public:
  /// The context is that of the GPU; its pool copies. It outlives the upload.
  static Result<std::unique_ptr<Upload>> open(Context& cx);

  /// Queued on the context's stream when the call returns, and `from` is needed no more. Errors are the stream's.
  void copy(const void* from, void* to, size_t bytes);
  void copy(const Tensor& from, const Tensor& to) {
    NIBBLE_CHECK(from.bytes() == to.bytes());
    copy(from.raw(), to.raw(), to.bytes());
  }

 private:
  Upload(Context& cx, PinnedBuffer pinned) : cx_(cx), pinned_(std::move(pinned)) {}

  Context& cx_;
  PinnedBuffer pinned_;
  size_t used_ = 0;
};

}  // namespace nibble
