#include "text/sentences.h"

#include <algorithm>
#include <array>

#include "text/characters.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

constexpr auto kAbbreviations = std::to_array<std::string_view>(
    {"dr",  "mr",  "mrs", "ms",  "prof", "sr",  "jr",  "st",     "smt", "shri", "sri", "vs",
     "etc", "e.g", "i.e", "a.m", "p.m",  "no",  "rs",  "approx", "inc", "ltd",  "co",  "jan",
     "feb", "mar", "apr", "jun", "jul",  "aug", "sep", "sept",   "oct", "nov",  "dec"});
constexpr size_t kLongestAbbreviation = 6;

bool is_soft_terminator(char32_t c) {
  return c == U'.' || c == U'!' || c == U'?';
}
bool is_hard_terminator(char32_t c) {
  return c == U'…' || c == U'।' || c == U'॥' || c == U'。' || c == U'！' || c == U'？';
}
bool is_closer(char32_t c) {
  constexpr std::u32string_view kClosers = U"\"')]}”’»";
  return kClosers.find(c) != kClosers.npos;
}

// The last character of a text; U+FFFD for broken bytes.
Utf8Unit last_character(std::string_view text) {
  for (size_t back = 1; back <= 4 && back <= text.size(); ++back) {
    const Utf8Unit unit = read_utf8(text.substr(text.size() - back));
    if (unit.kind == Utf8Unit::Kind::scalar && unit.size == back) return unit;
  }
  return {Utf8Unit::Kind::invalid, 1, 0xFFFD};
}

std::string_view without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    const Utf8Unit last = last_character(text);
    if (!is_white_space(last.scalar)) break;
    text.remove_suffix(last.size);
  }
  return text;
}

bool has_letter_or_digit(std::string_view text) {
  while (!text.empty()) {
    const Utf8Unit unit = read_utf8(text);
    if (is_letter(unit.scalar) || is_digit(unit.scalar)) return true;
    text.remove_prefix(unit.size);
  }
  return false;
}

size_t count_characters(std::string_view text) {
  size_t n = 0;
  for (; !text.empty(); ++n) text.remove_prefix(read_utf8(text).size);
  return n;
}

bool is_list_number(std::string_view text) {
  return (text.size() == 1 || text.size() == 2) &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool ends_with_single_capital(std::string_view text) {
  if (text.empty()) return false;
  const Utf8Unit last = last_character(text);
  if (!is_capital(last.scalar)) return false;
  text.remove_suffix(last.size);
  if (text.empty()) return true;
  const char32_t before = last_character(text).scalar;
  return !is_letter(before) && !is_mark(before) && !is_digit(before);
}

// Whether the letters and inner full stops at the end of the text are an abbreviation.
bool ends_with_abbreviation(std::string_view text) {
  std::string word;
  while (!text.empty()) {
    const char c = text.back();
    const bool upper = c >= 'A' && c <= 'Z';
    if (!upper && c != '.' && !(c >= 'a' && c <= 'z')) break;
    if (word.size() == kLongestAbbreviation) return false;
    word.insert(word.begin(), upper ? static_cast<char>(c - 'A' + 'a') : c);
    text.remove_suffix(1);
  }
  return std::find(kAbbreviations.begin(), kAbbreviations.end(), word) != kAbbreviations.end();
}

}  // namespace

void SentenceSplitter::feed(std::string_view bytes, std::vector<Sentence>& out) {
  partial_ += bytes;
  const size_t whole = complete_prefix(partial_);
  for (size_t at = 0; at < whole;) {
    const Utf8Unit unit = read_utf8(std::string_view(partial_).substr(at, whole - at));
    push(std::string_view(partial_).substr(at, unit.size), unit.scalar, out);
    at += unit.size;
  }
  partial_.erase(0, whole);
}

void SentenceSplitter::finish(std::vector<Sentence>& out) {
  if (!partial_.empty()) push(partial_, 0xFFFD, out);
  partial_.clear();
  emit(out);
}

void SentenceSplitter::push(std::string_view character, char32_t scalar, std::vector<Sentence>& out) {
  if (run_.open && !is_soft_terminator(scalar) && !is_hard_terminator(scalar) && !is_closer(scalar)) {
    if (ends_before(scalar)) emit(out);
    run_ = {};
  }
  if (scalar == U'\n') {
    emit(out);
  } else if (!pending_.empty() || !is_white_space(scalar)) {
    append(character, scalar);
    if (characters_ > max_characters_) cut_long(out);
  }
  position_ += character.size();
}

void SentenceSplitter::append(std::string_view character, char32_t scalar) {
  if (pending_.empty()) begin_ = position_;
  last_ = pending_.size();
  if (is_soft_terminator(scalar) || is_hard_terminator(scalar)) {
    if (!run_.open) run_ = {.open = true, .begin = last_};
    ++run_.terminators;
    run_.hard |= is_hard_terminator(scalar);
  }
  pending_ += character;
  ++characters_;
  if (is_white_space(scalar)) space_ = {last_, pending_.size()};
}

bool SentenceSplitter::ends_before(char32_t next) const {
  if (run_.hard) return true;
  if (!is_white_space(next)) return false;
  return run_.terminators != 1 || pending_[run_.begin] != '.' || !is_abbreviated();
}

bool SentenceSplitter::is_abbreviated() const {
  const std::string_view before = std::string_view(pending_).substr(0, run_.begin);
  return is_list_number(before) || ends_with_single_capital(before) || ends_with_abbreviation(before);
}

void SentenceSplitter::cut_long(std::vector<Sentence>& out) {
  const size_t end = space_.found() ? space_.begin : last_;
  const size_t next = space_.found() ? space_.end : last_;
  std::string rest = pending_.substr(next);
  Run run = run_;
  run.begin = run.begin > next ? run.begin - next : 0;
  const size_t begin = begin_ + next, last = last_ > next ? last_ - next : 0;

  pending_.resize(end);
  emit(out);
  pending_ = std::move(rest);
  begin_ = begin;
  characters_ = count_characters(pending_);
  last_ = last;
  if (!pending_.empty()) run_ = run;
}

void SentenceSplitter::emit(std::vector<Sentence>& out) {
  const std::string_view spoken = without_trailing_space(pending_);
  if (has_letter_or_digit(spoken)) out.push_back({std::string(spoken), begin_});
  pending_.clear();
  characters_ = 0;
  space_ = {};
  run_ = {};
}

std::vector<Sentence> sentences(std::string_view text, size_t max_characters) {
  std::vector<Sentence> out;
  SentenceSplitter splitter(max_characters);
  splitter.feed(text, out);
  splitter.finish(out);
  return out;
}

}  // namespace nibble::text
