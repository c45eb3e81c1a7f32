// The set as it grows: candidates are taken in an order that does not depend on when their answers came.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "synth/cell.h"
#include "text/near_duplicates.h"

namespace nibble::synth {

/// A conversation of the set.
struct Accepted {
  const Category* category;
  int64_t cell;
  Candidate candidate;
};

/// What became of the candidates of one category.
struct CategoryCount {
  int64_t accepted = 0;
  int64_t surplus = 0;                           // sound, but the quota was met
  std::map<std::string, int64_t> rejected = {};  // by reason; of several faults the first
};

class Collection {
 public:
  /// `near`: the similarity from which two conversations are one; 0 = only exact repetitions are left out.
  explicit Collection(double near) : near_(near), texts_(near > 0 ? near : 1) {}

  /// Takes a result: of each candidate that has no fault and repeats nothing, until the quota is met. Returns how many
  /// were usable, surplus among them. Rejected are also those that were broken, and those that never came ("missing").
  int64_t take(const CellWork& work, CellResult result);

  const std::vector<Accepted>& accepted() const { return accepted_; }
  const std::map<std::string, CategoryCount>& counts() const { return counts_; }

 private:
  double near_;
  std::set<std::string> exact_;
  text::NearDuplicates texts_;
  std::vector<Accepted> accepted_;
  std::map<std::string, CategoryCount> counts_;
};

}  // namespace nibble::synth
