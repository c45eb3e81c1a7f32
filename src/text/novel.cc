#include "text/novel.h"

#include <algorithm>
#include <array>
#include <unordered_set>

#include "text/case_fold.h"
#include "text/characters.h"
#include "text/number_words.h"
#include "text/sentences.h"
#include "text/span.h"
#include "text/utf8.h"
#include "text/words.h"

namespace nibble::text {
namespace {

constexpr std::array<std::string_view, 30> kCalendar = {
    "monday",   "tuesday", "wednesday", "thursday",  "friday",  "saturday",  "sunday",  "january",
    "february", "april",   "june",      "july",      "august",  "september", "october", "november",
    "december", "today",   "tomorrow",  "yesterday", "tonight", "morning",   "noon",    "afternoon",
    "evening",  "night",   "midnight",  "midday",    "weekend", "dawn"};

bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}
bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_ascii_digit);
}

std::string without_leading_zeros(std::string digits) {
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));
  return digits;
}

// What two spellings of one fact have in common.
std::string key_of(std::string_view word) {
  std::string key = case_fold(word);
  if (all_digits(key)) return without_leading_zeros(std::move(key));
  for (const std::string_view ending : {"st", "nd", "rd", "th", "am", "pm"}) {
    if (key.ends_with(ending) && all_digits(std::string_view(key).substr(0, key.size() - ending.size()))) {
      return without_leading_zeros(key.substr(0, key.size() - ending.size()));
    }
  }
  if (key.size() > 1 && key.ends_with('s')) key.pop_back();
  return key;
}

struct Token {
  Span at;
  std::string key;
  bool number = false;  // has a digit, or is a number word from two on
};

// Reads the words of a text as tokens: those of one number are one.
class Tokenizer {
 public:
  explicit Tokenizer(std::string_view text) : text_(text), words_(words(text)) {}

  std::vector<Token> run() {
    std::vector<Token> tokens;
    for (size_t i = 0; i < words_.size();) tokens.push_back(take(i));
    return tokens;
  }

 private:
  size_t begin(size_t i) const { return static_cast<size_t>(words_[i].data() - text_.data()); }
  size_t end(size_t i) const { return begin(i) + words_[i].size(); }
  std::string_view gap_before(size_t i) const { return text_.substr(end(i - 1), begin(i) - end(i - 1)); }

  Token take(size_t& i) {
    const size_t first = i++;
    if (all_digits(words_[first])) return digits(first, i);
    Token token{{begin(first), end(first)}, key_of(words_[first])};
    token.number = has_digit(words_[first]);
    const auto value = number_word(token.key);
    if (!value) return token;

    int64_t sum = *value;
    if (sum >= 20 && sum <= 90 && i < words_.size() && (gap_before(i) == " " || gap_before(i) == "-")) {
      const auto unit = number_word(case_fold(words_[i]));
      if (unit && *unit >= 1 && *unit <= 9) {
        sum += *unit;
        token.at.end = end(i++);
      }
    }
    token.key = std::to_string(sum);
    token.number = sum >= 2;
    return token;
  }

  // 1,500 and 1,50,000 are one number each.
  Token digits(size_t first, size_t& i) {
    std::string key(words_[first]);
    while (i < words_.size() && gap_before(i) == "," && all_digits(words_[i]) &&
           (words_[i].size() == 2 || words_[i].size() == 3)) {
      key += words_[i++];
    }
    return {{begin(first), end(i - 1)}, without_leading_zeros(std::move(key)), true};
  }

  static bool has_digit(std::string_view word) {
    for (; !word.empty(); word.remove_prefix(read_utf8(word).size)) {
      if (is_digit(read_utf8(word).scalar)) return true;
    }
    return false;
  }

  std::string_view text_;
  std::vector<std::string_view> words_;
};

bool is_fact(const Token& token, std::string_view word, bool first_in_sentence) {
  if (token.number) return true;
  if (std::find(kCalendar.begin(), kCalendar.end(), token.key) != kCalendar.end()) return true;
  const bool capital = is_capital(read_utf8(word).scalar);
  if (capital && token.key == "march") return true;
  return capital && !first_in_sentence && word != "I";
}

}  // namespace

std::vector<std::string> novel(std::string_view text, std::string_view context) {
  std::unordered_set<std::string> known;
  for (Token& token : Tokenizer(context).run()) known.insert(std::move(token.key));

  const std::vector<Sentence> all = sentences(text, SentenceSplitter::kNoLimit);
  size_t sentence = 0;  // the next to begin
  std::vector<std::string> facts;
  for (const Token& token : Tokenizer(text).run()) {
    bool first = false;
    for (; sentence < all.size() && all[sentence].begin <= token.at.begin; ++sentence) first = true;
    const std::string_view word = token.at.of(text);
    if (is_fact(token, word, first) && known.insert(token.key).second) facts.emplace_back(word);
  }
  return facts;
}

}  // namespace nibble::text
