#include "text/repetition.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>

#include "text/case_fold.h"
#include "text/characters.h"
#include "text/examined_text.h"
#include "text/span.h"
#include "text/utf8.h"
#include "text/words.h"

namespace nibble::text {
namespace {

constexpr size_t kLongestCycle = 8;
constexpr size_t kGramWords = 40;  // fewer words say nothing about their grams
constexpr double kFewGrams = 0.6;  // of distinct ones
constexpr size_t kCharacterRun = 12;

constexpr size_t cycles_of_words(size_t n) {
  return n == 1 ? 5 : n == 2 ? 4 : 3;
}

// The words of a text as numbers, equal for words that differ in case only.
class WordIds {
 public:
  explicit WordIds(std::string_view text) : text_(text), words_(words(text)) {
    std::unordered_map<std::string, uint32_t> known;
    ids_.reserve(words_.size());
    for (const std::string_view word : words_) {
      ids_.push_back(known.try_emplace(case_fold(word), static_cast<uint32_t>(known.size())).first->second);
    }
  }

  const std::vector<uint32_t>& ids() const { return ids_; }

  /// From the first to the last of `count` words.
  Span span(size_t first, size_t count) const {
    const std::string_view last = words_[first + count - 1];
    return {static_cast<size_t>(words_[first].data() - text_.data()),
            static_cast<size_t>(last.data() - text_.data()) + last.size()};
  }

 private:
  std::string_view text_;
  std::vector<std::string_view> words_;
  std::vector<uint32_t> ids_;
};

// The cycle that is complete first; of those the shortest.
std::optional<Span> find_cycle(const WordIds& words) {
  const std::vector<uint32_t>& ids = words.ids();
  std::array<size_t, kLongestCycle + 1> same{};  // [n]: how many words up to here equal those n words before them
  for (size_t i = 0; i < ids.size(); ++i) {
    for (size_t n = 1; n <= std::min(i, kLongestCycle); ++n) {
      same.at(n) = ids[i] == ids[i - n] ? same.at(n) + 1 : 0;
      const size_t length = n * cycles_of_words(n);
      if (same.at(n) >= length - n) return words.span(i + 1 - length, length);
    }
  }
  return std::nullopt;
}

bool has_few_grams(const std::vector<uint32_t>& ids) {
  if (ids.size() < kGramWords) return false;
  std::set<std::array<uint32_t, 4>> distinct;
  for (size_t i = 3; i < ids.size(); ++i) distinct.insert({ids[i - 3], ids[i - 2], ids[i - 1], ids[i]});
  return static_cast<double>(distinct.size()) < kFewGrams * static_cast<double>(ids.size() - 3);
}

std::optional<Span> find_character_run(std::string_view text) {
  Span run{0, 0};
  size_t count = 0;
  char32_t of = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = read_utf8(text.substr(at));
    if (count == 0 || unit.scalar != of) {
      if (count >= kCharacterRun) return run;
      run.begin = at;
      count = 0;
      of = unit.scalar;
    }
    at += unit.size;
    run.end = at;
    count = is_white_space(of) ? 0 : count + 1;
  }
  return count >= kCharacterRun ? std::optional(run) : std::nullopt;
}

std::string folded_words(std::string_view text) {
  std::string out;
  for (const std::string_view word : words(text)) out += case_fold(word) + ' ';
  return out;
}

}  // namespace

Result<std::vector<Detection>> detect_repetition(std::string_view text) {
  NIBBLE_TRY(visible, examined_text(text));
  const WordIds words(visible);
  std::vector<Detection> hits;
  const auto add = [&](const char* detector, const std::optional<Span>& at) {
    if (at) hits.push_back({detector, at->begin, at->end, std::string(at->of(visible))});
  };
  add("repetition.cycle", find_cycle(words));
  if (has_few_grams(words.ids())) add("repetition.grams", words.span(0, words.ids().size()));
  add("repetition.character", find_character_run(visible));
  return hits;
}

bool is_stuck(std::string_view reply, std::string_view previous_reply, std::string_view user,
              std::string_view previous_user) {
  const std::string said = folded_words(reply);
  return !said.empty() && said == folded_words(previous_reply) && folded_words(user) != folded_words(previous_user);
}

}  // namespace nibble::text
