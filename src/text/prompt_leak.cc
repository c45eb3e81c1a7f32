#include "text/prompt_leak.h"

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <unordered_map>

#include "text/case_fold.h"
#include "text/examined_text.h"
#include "text/words.h"

namespace nibble::text {
namespace {

constexpr size_t kShingle = 8;
using Shingle = std::array<uint32_t, kShingle>;

// The last words read, as numbers. `shingle()` is whole once eight were pushed since the last reset.
class Window {
 public:
  void push(uint32_t word) {
    for (size_t i = 1; i < kShingle; ++i) words_[i - 1] = words_[i];
    words_.back() = word;
    ++count_;
  }
  void reset() { count_ = 0; }
  bool whole() const { return count_ >= kShingle; }
  const Shingle& shingle() const { return words_; }

 private:
  Shingle words_{};
  size_t count_ = 0;
};

}  // namespace

Result<std::vector<Detection>> detect_prompt_leak(std::string_view reply, std::string_view system_prompt) {
  NIBBLE_TRY(visible, examined_text(reply));
  std::unordered_map<std::string, uint32_t> ids;
  std::set<Shingle> shingles;
  Window window;
  for (const std::string_view word : words(system_prompt)) {
    window.push(ids.try_emplace(case_fold(word), static_cast<uint32_t>(ids.size())).first->second);
    if (window.whole()) shingles.insert(window.shingle());
  }

  std::vector<Detection> hits;
  const auto offset = [&](std::string_view word) { return static_cast<size_t>(word.data() - visible.data()); };
  const std::vector<std::string_view> said = words(visible);
  window.reset();
  for (size_t i = 0, covered = 0; i < said.size(); ++i) {
    const auto id = ids.find(case_fold(said[i]));
    if (id == ids.end()) {
      window.reset();
      continue;
    }
    window.push(id->second);
    if (!window.whole() || !shingles.contains(window.shingle())) continue;
    const size_t first = i + 1 - kShingle, end = offset(said[i]) + said[i].size();
    // A shingle that overlaps the one before goes on with its hit.
    if (hits.empty() || first >= covered) {
      hits.push_back({"prompt_leak", offset(said[first]), end, {}});
    }
    hits.back().end = end;
    covered = i + 1;
  }
  for (Detection& hit : hits) hit.snippet = visible.substr(hit.begin, hit.end - hit.begin);
  return hits;
}

}  // namespace nibble::text
