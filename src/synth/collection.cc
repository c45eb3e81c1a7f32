#include "synth/collection.h"

#include <algorithm>

#include "base/sha256.h"
#include "train/record.h"

namespace nibble::synth {

int64_t Collection::take(const CellWork& work, CellResult result) {
  CategoryCount& count = counts_[work.category->id];
  int64_t usable = 0, broken = 0;
  for (Candidate& one : result.candidates) {
    if (!one.faults.empty()) {
      ++count.rejected[one.faults[0].reason];
      continue;
    }
    const std::string text = train::spoken_text(one.record["messages"]);
    std::string hash = sha256_of(text);
    if (exact_.contains(hash)) {
      ++count.rejected["duplicate"];
      continue;
    }
    if (near_ > 0 && texts_.find(text)) {
      ++count.rejected["near_duplicate"];
      continue;
    }
    ++usable;
    if (count.accepted == work.category->quota) {
      ++count.surplus;
      continue;
    }
    ++count.accepted;
    exact_.insert(std::move(hash));
    if (near_ > 0) texts_.add(text);
    accepted_.push_back({work.category, work.cell, std::move(one)});
  }
  const int64_t missing = result.asked - static_cast<int64_t>(result.candidates.size());
  broken = std::min(result.broken, missing);
  if (result.lost) {
    count.rejected["lost"] += missing;
  } else {
    if (broken > 0) count.rejected["broken"] += broken;
    if (missing > broken) count.rejected["missing"] += missing - broken;
  }
  return usable;
}

}  // namespace nibble::synth
