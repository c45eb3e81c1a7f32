#include "text/bpe.h"

#include <algorithm>
#include <functional>

namespace nibble::text {
namespace {

uint64_t pack(uint32_t high, uint32_t low) {
  return uint64_t{high} << 32 | low;
}
uint64_t pair_key(int32_t left, int32_t right) {
  return pack(static_cast<uint32_t>(left), static_cast<uint32_t>(right));
}

}  // namespace

bool Bpe::add_merge(int32_t left, int32_t right, int32_t result) {
  const Merge merge = {static_cast<uint32_t>(merges_.size()), result};
  return merges_.emplace(pair_key(left, right), merge).second;
}

// Looks up the merge of the symbol with its next one. A merge queued earlier for the position goes stale by that.
void Bpe::queue_merge(Scratch& scratch, int32_t at) const {
  Symbol& symbol = scratch.symbols_[at];
  symbol.merge.rank = kNone;
  if (symbol.next < 0) return;
  const auto found = merges_.find(pair_key(symbol.id, scratch.symbols_[symbol.next].id));
  if (found == merges_.end()) return;
  symbol.merge = found->second;
  scratch.heap_.push_back(pack(symbol.merge.rank, static_cast<uint32_t>(at)));
}

void Bpe::merge_all(Scratch& scratch) const {
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  const auto later = std::greater<>();
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    const auto at = static_cast<int32_t>(heap.back() & 0xFFFFFFFFu);
    heap.pop_back();
    Symbol& left = symbols[at];
    if (left.merge.rank != rank) continue;  // stale: one of the two has merged otherwise

    Symbol& right = symbols[left.next];
    left.id = left.merge.result;
    left.next = right.next;
    right.merge.rank = kNone;
    if (left.next >= 0) symbols[left.next].previous = at;
    for (const int32_t changed : {at, left.previous}) {
      if (changed < 0) continue;
      const size_t before = heap.size();
      queue_merge(scratch, changed);
      if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), later);
    }
  }
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
  if (const auto known = words_.find(word); known != words_.end()) {
    out.push_back(known->second);
    return;
  }
  const auto size = static_cast<int32_t>(word.size());
  scratch.symbols_.clear();
  scratch.heap_.clear();
  for (int32_t i = 0; i < size; ++i) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(word[i])];
    scratch.symbols_.push_back({id, i - 1, i + 1 < size ? i + 1 : -1, {kNone, 0}});
  }
  for (int32_t i = 0; i < size; ++i) queue_merge(scratch, i);
  merge_all(scratch);
  // A merge keeps the left symbol, so the first one always begins the word.
  for (int32_t i = size == 0 ? -1 : 0; i >= 0; i = scratch.symbols_[i].next) out.push_back(scratch.symbols_[i].id);
}

}  // namespace nibble::text
