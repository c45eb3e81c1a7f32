// Stream: the order in which a GPU does what is queued. Graph: a recorded piece of that order, queued again at once.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"
#include "tensor/tensor.h"

namespace nibble {

/// Recorded work with the addresses it was recorded with; what it reads and writes there may change between replays.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual int64_t nodes() const = 0;
};

/// One per thread of work. Calls return when the work is queued, not when it is done. The first failure sticks: later
/// calls queue nothing, and wait() reports it.
class Stream {
 public:
  /// As open_device; `index` counts GPUs.
  static Result<std::unique_ptr<Stream>> open(Device device);
  virtual ~Stream() = default;

  virtual Device device() const = 0;
  /// Between any two places of equal size. From or to memory of the machine the call waits for the copy, unless the
  /// memory is pinned.
  virtual void copy(const void* from, void* to, size_t bytes) = 0;
  virtual void fill_zero(void* to, size_t bytes) = 0;
  /// Returns when all that was queued is done.
  virtual Status wait() = 0;

  /// Records what `work` queues here; none of it runs.
  virtual Result<std::unique_ptr<Graph>> capture(const std::function<void()>& work) = 0;
  virtual void replay(const Graph& graph) = 0;

  /// Milliseconds that the GPU took for what `work` queued; waits for it.
  virtual Result<double> time_ms(const std::function<void()>& work) = 0;

  /// The backend's own handle.
  virtual void* native() const = 0;
  /// For kernels: keeps the first error of the backend, with the name of the op.
  virtual void note(int error, const char* op) = 0;

  void copy(const Tensor& from, const Tensor& to) {
    NIBBLE_CHECK(from.bytes() == to.bytes());
    copy(from.raw(), to.raw(), to.bytes());
  }
};

/// Memory of this machine that a GPU reads and writes by itself while a stream goes on.
class PinnedBuffer {
 public:
  static Result<PinnedBuffer> allocate(size_t bytes);
  std::byte* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte[], Free> data_;
  size_t bytes_ = 0;
};

}  // namespace nibble
