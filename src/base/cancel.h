// CancelToken: one flag, set by Ctrl-C, a closed connection or a deadline, read between blocks of long work.
#pragma once

#include <atomic>
#include <memory>

namespace nibble {

/// Copies share the flag. Setting and reading are safe from any thread and from a signal handler.
class CancelToken {
 public:
  CancelToken() : flag_(std::make_shared<std::atomic<bool>>(false)) {}
  void cancel() const { flag_->store(true, std::memory_order_relaxed); }
  bool cancelled() const { return flag_->load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<std::atomic<bool>> flag_;
};

}  // namespace nibble
