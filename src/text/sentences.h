// Cuts a stream of text into what is spoken in one breath: sentences, or parts of very long ones.
//
// A sentence ends
//   * at a terminator, one of . ! ? … । ॥ 。 ！ ？, together with the terminators and closing quotes or brackets behind
//   it,
//     where white space follows; at … । ॥ 。 ！ ？ whatever follows;
//   * not at a single full stop behind an abbreviation (Dr, e.g, p.m, Rs, Jan, …), behind a single capital letter, or
//     behind a number of one or two digits with which the sentence began;
//   * at a line feed.
// A sentence of more than `max_characters` is cut at its last space before that, or there if it has none. What has
// neither letter nor digit is dropped.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "text/span.h"

namespace nibble::text {

struct Sentence {
  std::string text;  // without white space at its ends
  size_t begin;      // where it began in the stream, in bytes
};

/// The result does not depend on how the stream is cut into feeds. Linear time, any bytes; not thread-safe.
class SentenceSplitter {
 public:
  static constexpr size_t kSpokenCharacters = 200;
  static constexpr size_t kNoLimit = static_cast<size_t>(-1);

  explicit SentenceSplitter(size_t max_characters = kSpokenCharacters) : max_characters_(max_characters) {}

  /// Appends the sentences of which it is now certain where they end.
  void feed(std::string_view bytes, std::vector<Sentence>& out);

  /// The stream ended: appends what is left.
  void finish(std::vector<Sentence>& out);

 private:
  void push(std::string_view character, char32_t scalar, std::vector<Sentence>& out);
  void append(std::string_view character, char32_t scalar);
  bool ends_before(char32_t next) const;
  bool is_abbreviated() const;
  void cut_long(std::vector<Sentence>& out);
  void emit(std::vector<Sentence>& out);

  size_t max_characters_;
  std::string partial_;    // the start of a character whose rest has not come
  size_t position_ = 0;    // of the next character in the stream
  std::string pending_;    // the sentence so far
  size_t begin_ = 0;       // of pending_ in the stream
  size_t characters_ = 0;  // in pending_
  Span space_;             // the last white space in pending_
  size_t last_ = 0;        // where the last character of pending_ begins

  // The terminators and closers with which pending_ ends.
  struct Run {
    bool open = false;
    size_t begin = 0;        // in pending_
    size_t terminators = 0;  // the others are closers
    bool hard = false;       // one of them ends a sentence whatever follows
  } run_;
};

/// All sentences of a text, in chunks of at most kSpokenCharacters as they are spoken. Their number is what
/// `max_sentences` limits.
std::vector<Sentence> sentences(std::string_view text, size_t max_characters = SentenceSplitter::kSpokenCharacters);

}  // namespace nibble::text
