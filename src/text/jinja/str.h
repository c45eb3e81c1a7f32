// Str: a Python str (UTF-8 here) that knows, for each byte, where it came from.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/origin.h"

namespace nibble::text::jinja {

class Str {
 public:
  /// A stretch of one origin; it begins where the run before it ends.
  struct Run {
    size_t end;
    Origin origin;
  };

  Str() = default;
  Str(std::string bytes, Origin origin);

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  /// Ascending; the last one ends at size(); neighbours differ in origin.
  const std::vector<Run>& runs() const { return runs_; }
  /// Of the byte at `position` < size().
  Origin origin_at(size_t position) const;

  void append(std::string_view bytes, Origin origin);
  void append(const Str& other) { append(other, 0, other.size()); }
  /// Bytes [begin, end) of `other` with their origins.
  void append(const Str& other, size_t begin, size_t end);
  Str slice(size_t begin, size_t end) const;

  /// Gives `turn` to the runs that have none.
  void stamp_turn(int turn);
  void mark_generation();

 private:
  void add_run(size_t end, Origin origin);

  std::string bytes_;
  std::vector<Run> runs_;
};

/// One code point of UTF-8 text; an invalid byte is a code point of its own with value -1.
struct CodePoint {
  int32_t value;
  size_t size;  // bytes
};
/// `position` < text.size().
CodePoint code_point_at(std::string_view text, size_t position);
std::string encode_utf8(int32_t code_point);
/// What Python's str.isspace() and \s accept.
bool is_space(int32_t code_point);
/// Bytes of white space at the beginning, or at the end, of `text`.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

/// Code points of `text`: Python's len().
size_t length(std::string_view text);
/// The byte at which code point `index` begins; text.size() if there are no more.
size_t byte_offset(std::string_view text, size_t index);

enum class Side { left, right, both };
/// str.strip, lstrip, rstrip: without `characters`, white space.
Str strip(const Str& text, Side side, std::optional<std::string_view> characters);
/// str.split and rsplit: without `separator`, at runs of white space. `separator` is not empty; max_splits < 0 = no
/// limit.
std::vector<Str> split(const Str& text, std::optional<std::string_view> separator, int64_t max_splits, Side from);
std::vector<Str> split_lines(const Str& text, bool keep_ends);

enum class Case { upper, lower };
/// By the simple mapping of Unicode, one code point to one: "ß" stays "ß" where Python writes "SS".
Str change_case(const Str& text, Case to);
/// str.title(): a cased letter is upper case after an uncased one, else lower case.
Str title_words(const Str& text);
/// str.capitalize().
Str capitalize(const Str& text);

}  // namespace nibble::text::jinja
