#include "text/near_duplicates.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "text/case_fold.h"
#include "text/words.h"

namespace nibble::text {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection whose output bits depend on all input bits.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

constexpr uint64_t kStep = 0x9E3779B97F4A7C15ULL;

uint64_t hash_of(std::string_view word) {
  uint64_t hash = 0xCBF29CE484222325ULL;
  for (const char c : word) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return mix(hash);
}

}  // namespace

std::vector<uint64_t> word_triples(std::string_view text) {
  const std::string folded = case_fold(text);
  std::vector<uint64_t> words;
  for (const std::string_view word : text::words(folded)) words.push_back(hash_of(word));
  std::vector<uint64_t> set;
  if (words.empty()) return set;
  const size_t run = std::min<size_t>(3, words.size());
  for (size_t i = 0; i + run <= words.size(); ++i) {
    uint64_t hash = run;
    for (size_t k = 0; k < run; ++k) hash = mix(hash * kStep + words[i + k]);
    set.push_back(hash);
  }
  std::sort(set.begin(), set.end());
  set.erase(std::unique(set.begin(), set.end()), set.end());
  return set;
}

double similarity(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  if (a.empty() && b.empty()) return 1;
  size_t shared = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++shared;
    const bool step_a = a[i] <= b[j], step_b = b[j] <= a[i];
    i += step_a ? 1 : 0;
    j += step_b ? 1 : 0;
  }
  return static_cast<double>(shared) / static_cast<double>(a.size() + b.size() - shared);
}

std::vector<uint64_t> NearDuplicates::bands_of(const std::vector<uint64_t>& set) const {
  std::array<uint64_t, kBands * kRows> least;
  least.fill(std::numeric_limits<uint64_t>::max());
  for (const uint64_t element : set) {
    for (size_t k = 0; k < least.size(); ++k) least[k] = std::min(least[k], mix(element ^ (k * kStep)));
  }
  std::vector<uint64_t> bands;
  for (size_t band = 0; band < kBands; ++band) {
    uint64_t hash = band + 1;
    for (size_t row = 0; row < kRows; ++row) hash = mix(hash * kStep + least[band * kRows + row]);
    bands.push_back(hash);
  }
  return bands;
}

std::optional<size_t> NearDuplicates::find(std::string_view text) const {
  const std::vector<uint64_t> set = word_triples(text);
  std::vector<uint32_t> candidates;
  for (const uint64_t band : bands_of(set)) {
    const auto bucket = buckets_.find(band);
    if (bucket != buckets_.end()) candidates.insert(candidates.end(), bucket->second.begin(), bucket->second.end());
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  for (const uint32_t candidate : candidates) {
    if (similarity(set, sets_[candidate]) >= least_) return candidate;
  }
  return std::nullopt;
}

size_t NearDuplicates::add(std::string_view text) {
  const size_t number = sets_.size();
  sets_.push_back(word_triples(text));
  for (const uint64_t band : bands_of(sets_.back())) buckets_[band].push_back(static_cast<uint32_t>(number));
  return number;
}

}  // namespace nibble::text
