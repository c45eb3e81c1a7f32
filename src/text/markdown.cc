#include "text/markdown.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "text/blanks.h"

namespace nibble::text {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_space(char c) {
  return c == ' ' || c == '\t';
}
bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
// Letters beyond ASCII are words too; that their punctuation counts with them does no harm here.
bool is_word(char c) {
  return is_alnum(c) || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

bool is_html_name(std::string_view lower) {
  constexpr std::array<std::string_view, 23> kNames = {"b",  "i",  "u",  "em",  "strong", "br",    "p",   "ul",
                                                       "ol", "li", "h1", "h2",  "h3",     "h4",    "h5",  "h6",
                                                       "td", "th", "tr", "pre", "code",   "table", "span"};
  return std::find(kNames.begin(), kNames.end(), lower) != kNames.end() || lower == "div";
}

// The first place at or behind `at` of any of some characters. Calls with growing `at` cost one pass together.
class NextOf {
 public:
  NextOf(std::string_view text, std::string_view characters) : text_(text), characters_(characters) {}
  size_t operator()(size_t at) {
    if (!searched_ || (found_ != kNone && found_ < at)) found_ = text_.find_first_of(characters_, at);
    searched_ = true;
    return found_;
  }

 private:
  std::string_view text_, characters_;
  bool searched_ = false;
  size_t found_ = 0;
};

// One line without the marks that stand inside it.
class InlineStripper {
 public:
  InlineStripper(std::string_view line, std::string& out) : line_(line), out_(out) {}

  void run() {
    for (size_t i = 0; i < line_.size();) i = step(i);
  }

 private:
  char at(size_t i) const { return i < line_.size() ? line_[i] : ' '; }

  // Handles what begins at i and returns where to go on.
  size_t step(size_t i) {
    const char c = line_[i];
    if (i == bracket_end_) return target_end_ + 1;
    if (c == '`') return i + 1;
    if (c == '*' || c == '_') return emphasis(i);
    if (c == '<') {
      if (const size_t end = html_tag(i); end != kNone) return end;
    }
    if (c == '[' || (c == '!' && at(i + 1) == '[')) {
      const size_t open = c == '[' ? i : i + 1;
      if (link(open)) return open + 1;
    }
    out_ += c;
    return i + 1;
  }

  // A run of * or _ is markup if it touches a word on one side only; ** also inside a word.
  size_t emphasis(size_t i) {
    const size_t end = std::min(line_.find_first_not_of(line_[i], i), line_.size());
    const char before = i == 0 ? ' ' : line_[i - 1], after = at(end);
    const bool apart = is_space(before) && is_space(after);
    const bool inside_word = is_word(before) && is_word(after);
    const bool strong = line_[i] == '*' && end - i > 1;
    if (apart || (inside_word && !strong)) out_ += line_.substr(i, end - i);
    return end;
  }

  // Behind the '>' of an HTML tag at i; kNone if there is none.
  size_t html_tag(size_t i) {
    size_t end = i + 1 + (at(i + 1) == '/' ? 1 : 0);
    std::string name;
    while (end < line_.size() && is_alnum(line_[end]) && name.size() <= 6) {
      name += static_cast<char>(line_[end] >= 'A' && line_[end] <= 'Z' ? line_[end] - 'A' + 'a' : line_[end]);
      ++end;
    }
    if (!is_html_name(name) || is_word(at(end))) return kNone;
    const size_t close = next_angle_(end);
    return close == kNone ? kNone : close + 1;
  }

  // Whether [words](target) begins at `open`. If so, the words are read on and step() skips the target.
  bool link(size_t open) {
    const size_t close = next_bracket_(open);
    if (close == kNone || close == open + 1 || at(close + 1) != '(') return false;
    const size_t end = next_target_end_(close + 2);
    if (end == kNone || line_[end] != ')' || end == close + 2) return false;
    bracket_end_ = close;
    target_end_ = end;
    return true;
  }

  std::string_view line_;
  std::string& out_;
  NextOf next_angle_{line_, ">"}, next_bracket_{line_, "]"}, next_target_end_{line_, ") \t"};
  size_t bracket_end_ = kNone, target_end_ = kNone;  // of the link under way
};

// A rule, the line under a table's head, or the edge of a code block.
bool is_drawing(std::string_view line) {
  if (line.starts_with("```") || line.starts_with("~~~")) return true;
  if (line.size() < 3) return false;
  if (line.front() == '|') return line.find_first_not_of("|-: \t") == kNone;
  return std::string_view("-*_").find(line.front()) != kNone && line.find_first_not_of(line.front()) == kNone;
}

// Removes the marks at the start of a line; returns whether the line is a sentence of its own, as a heading and a list
// item are.
bool strip_line_marks(std::string_view& line) {
  bool own_sentence = false;
  while (!line.empty()) {
    const size_t hashes = std::min(line.find_first_not_of('#'), line.size());
    constexpr std::string_view kDot = "•";
    size_t mark = 0;
    if (hashes >= 1 && hashes <= 6) mark = hashes;
    if (std::string_view("-*+>").find(line.front()) != kNone) mark = 1;
    if (line.starts_with(kDot)) mark = kDot.size();
    if (mark == 0 || mark >= line.size() || !is_space(line[mark])) break;
    own_sentence |= line.front() != '>';
    line = trimmed(line.substr(mark));
  }
  return own_sentence;
}

}  // namespace

std::string strip_markdown(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = trimmed(text.substr(begin, end - begin));
    if (begin > 0) out += '\n';
    begin = end + 1;
    if (is_drawing(line)) continue;

    const bool own_sentence = strip_line_marks(line);
    const size_t line_begin = out.size();
    InlineStripper(line, out).run();
    if (line.starts_with('|')) std::replace(out.begin() + static_cast<std::ptrdiff_t>(line_begin), out.end(), '|', ' ');
    if (own_sentence && out.size() > line_begin && std::string_view(".?!,;:").find(out.back()) == kNone) out += '.';
  }
  return out;
}

}  // namespace nibble::text
