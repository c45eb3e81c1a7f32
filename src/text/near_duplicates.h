// Texts that say nearly the same, found without comparing each with each: MinHash signatures in bands (Broder 1997;
// Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4), every candidate then judged exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nibble::text {

/// The hashes of all runs of three words (case-folded runs of letters, marks and digits), sorted, each once. A text of
/// one or two words has one run, of what it has; one without words none.
std::vector<uint64_t> word_triples(std::string_view text);

/// Shared elements by elements of both: the Jaccard similarity of two sorted sets; 1 for two empty ones.
double similarity(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b);

/// A growing set of texts. Memory: the triples and 32 band hashes of each. Not thread-safe.
class NearDuplicates {
 public:
  /// `least` in (0, 1]: the similarity from which two texts are one. From .8 on no more than one pair in 10^7 that
  /// should be found is missed, which is 32 bands of 4 rows.
  explicit NearDuplicates(double least) : least_(least) {}

  /// The first text that was added and is that similar.
  std::optional<size_t> find(std::string_view text) const;
  /// Returns its number, from 0.
  size_t add(std::string_view text);
  size_t size() const { return sets_.size(); }

 private:
  static constexpr size_t kBands = 32, kRows = 4;
  std::vector<uint64_t> bands_of(const std::vector<uint64_t>& set) const;

  double least_;
  std::vector<std::vector<uint64_t>> sets_;
  std::unordered_map<uint64_t, std::vector<uint32_t>> buckets_;  // band hash -> texts
};

}  // namespace nibble::text
