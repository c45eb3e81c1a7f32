// How many conversations to ask for, so that after what will be rejected the quota is there.
#pragma once

#include <cstdint>
#include <vector>

namespace nibble::synth {

/// What is known of one category. Pure: the same history gives the same demand, so a run that is taken up asks again
/// for what it would have asked for.
class Demand {
 public:
  explicit Demand(int64_t quota) : quota_(quota) {}

  /// A round brought `usable` conversations for the `asked` ones, of which those beyond the quota were left.
  void add_round(int64_t asked, int64_t usable);

  int64_t missing() const { return usable_ < quota_ ? quota_ - usable_ : 0; }
  /// Expected share of what is asked for that is usable: what was seen, with the weight of kPriorRows rows at kPrior.
  double yield() const;
  /// For the next round: missing() / yield(), rounded up, at most kMostPerRound times missing(); 0 when nothing is.
  int64_t next() const;
  /// Rounds one after the other, up to the last, that brought nothing.
  int dry_rounds() const { return dry_rounds_; }
  int64_t asked() const { return asked_; }
  int64_t usable() const { return usable_; }

  static constexpr double kPrior = 0.9, kPriorRows = 10;
  static constexpr int64_t kMostPerRound = 8;

 private:
  int64_t quota_;
  int64_t asked_ = 0, usable_ = 0;
  int dry_rounds_ = 0;
};

/// `rows` as requests of at most `batch` conversations, sizes as even as they can be, larger ones first.
std::vector<int64_t> batches_of(int64_t rows, int64_t batch);

}  // namespace nibble::synth
