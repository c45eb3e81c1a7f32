#include "synth/demand.h"

#include <algorithm>
#include <cmath>

namespace nibble::synth {

void Demand::add_round(int64_t asked, int64_t usable) {
  asked_ += asked;
  usable_ += usable;
  dry_rounds_ = usable == 0 && asked > 0 ? dry_rounds_ + 1 : 0;
}

double Demand::yield() const {
  return (static_cast<double>(usable_) + kPrior * kPriorRows) / (static_cast<double>(asked_) + kPriorRows);
}

int64_t Demand::next() const {
  const int64_t rows = missing();
  const auto wanted = static_cast<int64_t>(std::ceil(static_cast<double>(rows) / yield()));
  return std::min(wanted, rows * kMostPerRound);
}

std::vector<int64_t> batches_of(int64_t rows, int64_t batch) {
  std::vector<int64_t> sizes;
  const int64_t count = (rows + batch - 1) / batch;
  for (int64_t i = 0; i < count; ++i) sizes.push_back(rows / count + (i < rows % count ? 1 : 0));
  return sizes;
}

}  // namespace nibble::synth
