#include "text/jinja/budget.h"

#include <ctime>

#include "text/jinja/error.h"

namespace nibble::text::jinja {
namespace {

// A level costs at most some 2 KiB of stack under a sanitizer, so this fits a thread with 2 MiB.
constexpr int kMaxLevels = 600;
constexpr uint64_t kStepsBetweenLooks = 256;

// Processor time, not wall time: a busy machine must not turn a good template into an error.
double thread_cpu_ms() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

}  // namespace

Budget::Budget(const RenderLimits& limits) : limits_(limits), start_ms_(thread_cpu_ms()) {}

void Budget::step(uint64_t n) {
  if (n > limits_.steps - spent_) raise("expected at most {} steps of rendering, got more", limits_.steps);
  spent_ += n;
  if (spent_ < next_look_at_clock_) return;
  next_look_at_clock_ = spent_ + kStepsBetweenLooks;
  check_time();
}

void Budget::text(size_t n) {
  if (n > limits_.output_bytes) raise("expected at most {} bytes of text, got {}", limits_.output_bytes, n);
  step(n / 64);
}

void Budget::check_time() const {
  if (thread_cpu_ms() - start_ms_ > limits_.cpu_ms)
    raise("expected at most {} ms of rendering, got more", limits_.cpu_ms);
}

Budget::Level::Level(Budget& budget) : budget_(budget) {
  if (budget_.levels_ >= kMaxLevels) raise("expected at most {} levels of nested evaluation, got more", kMaxLevels);
  ++budget_.levels_;
}

}  // namespace nibble::text::jinja
