// How many requests to have in flight: additive increase, multiplicative decrease, as TCP finds its share of a line.
#pragma once

#include <algorithm>

namespace nibble::synth {

/// Pure: times are given, in seconds of one clock. Not thread-safe.
class Aimd {
 public:
  Aimd(int start, int most) : most_(std::max(most, 1)), limit_(std::clamp(start, 1, most_)) {}

  /// At least 1.
  int limit() const { return static_cast<int>(limit_); }
  /// No request may begin before this.
  double open_s() const { return open_s_; }

  /// As many answers as the limit is high make it one higher.
  void succeeded() {
    if (++successes_ < limit()) return;
    successes_ = 0;
    limit_ = std::min<double>(limit() + 1, most_);
  }

  /// The server had enough (429). Requests rest for kRest_s, or as long as it asked for, and the limit falls by a
  /// quarter: once for all requests that were begun before it fell.
  void overloaded(double now_s, double began_s, double retry_after_s = -1) {
    open_s_ = std::max(open_s_, now_s + (retry_after_s >= 0 ? std::min(retry_after_s, kLongestRest_s) : kRest_s));
    if (began_s < fell_s_) return;
    fell_s_ = now_s;
    successes_ = 0;
    limit_ = std::max(1.0, limit_ * kFall);
  }

  static constexpr double kFall = 0.75, kRest_s = 2, kLongestRest_s = 60;

 private:
  int most_;
  double limit_;
  int successes_ = 0;
  double open_s_ = 0;
  double fell_s_ = -1;
};

}  // namespace nibble::synth
