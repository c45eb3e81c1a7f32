// The one way to a teacher: how many requests are in flight, what they may cost, and what is tried again.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include "base/cancel.h"
#include "base/result.h"
#include "synth/aimd.h"
#include "synth/ledger.h"
#include "synth/teacher.h"

namespace nibble::synth {

struct AskOptions {
  int jobs = 8;                  // requests in flight at most
  int retries = 5;               // further attempts at a request that got no whole answer
  double first_backoff_s = 0.5;  // doubled with each, at most 8 s, with up to half of it by chance
  double patience_s = 600;       // how long a teacher may be overloaded without one answer
  Budget budget;
  CancelToken cancel = {};
};

/// Why asking is over for good.
enum class Stop : uint8_t { none, cancelled, budget, refused, unavailable };

/// All methods are safe from any thread.
class Asker {
 public:
  explicit Asker(const AskOptions& options, Prices prices);

  /// Waits for a place, asks, and asks again what got no answer. An overloaded teacher costs no attempt: all rest, and
  /// fewer ask (aimd.h). Errors:
  ///   unavailable  this request got no answer in all its attempts; others may
  ///   cancelled    asking is over: stopped() says why, stop_status() what was wrong
  Result<Answer> ask(Teacher& teacher, const Question& question);

  /// Of an answer that was paid for earlier.
  void count(const Answer& answer);

  Stop stopped() const;
  Status stop_status() const;
  Spent spent() const;

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Place {
    int64_t prompt_tokens, granted;
    double began_s;
  };
  Result<Place> enter(const Question& question);
  Status leave(const Place& place, const Attempt& attempt);
  void rest(double seconds);
  Status stop(const Lock& lock, Stop why, Status status);

  static constexpr int kMostLost = 8;  // requests one after the other without an answer: nobody is there

  const AskOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Aimd aimd_;
  Ledger ledger_;
  int in_flight_ = 0;
  int lost_ = 0;
  double last_answer_s_;
  Stop stop_ = Stop::none;
  Status stop_status_;
};

}  // namespace nibble::synth
