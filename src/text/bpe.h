// Byte-pair encoding of one word: start from its bytes and, as long as two neighbours can merge, merge the pair of
// lowest rank, the leftmost on ties.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <string_view>
#include <vector>

namespace nibble::text {

/// Built once, then const and safe from any thread, each with its own Scratch.
class Bpe {
 public:
  /// Working memory of encode(), kept between words to save allocations.
  class Scratch;

  /// byte_ids[b]: the token of the single byte b, -1 where there is none (encode() must not meet that byte).
  explicit Bpe(const std::array<int32_t, 256>& byte_ids) : byte_ids_(byte_ids) {}

  /// Adds the merge of the next rank; false if the pair has one already. `result` differs from both.
  bool add_merge(int32_t left, int32_t right, int32_t result);

  /// Declares that `word` encodes as the one token `id`, whatever the merges say. `word` must outlive this object.
  void add_word(std::string_view word, int32_t id) { words_.emplace(word, id); }

  /// Appends the tokens of the word. O(n log n) in its length.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t result;
  };
  // A token of the word so far: a node of a list linked by index, -1 at its ends.
  struct Symbol {
    int32_t id, previous, next;
    Merge merge;  // with the next symbol; rank kNone if there is none, or if this symbol was merged into its left
  };
  static constexpr uint32_t kNone = ~uint32_t{0};

  void queue_merge(Scratch& scratch, int32_t at) const;
  void merge_all(Scratch& scratch) const;

  std::array<int32_t, 256> byte_ids_;
  boost::unordered_flat_map<uint64_t, Merge> merges_;  // by pair, left id in the high half
  boost::unordered_flat_map<std::string_view, int32_t> words_;
};

class Bpe::Scratch {
  friend class Bpe;
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> heap_;  // rank in the high half, position in the low: the least is the next to merge
};

}  // namespace nibble::text
