#include "text/jinja/str.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace nibble::text::jinja {

Str::Str(std::string bytes, Origin origin) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), origin});
}

Origin Str::origin_at(size_t position) const {
  const auto run =
      std::upper_bound(runs_.begin(), runs_.end(), position, [](size_t p, const Run& r) { return p < r.end; });
  return run->origin;
}

void Str::add_run(size_t end, Origin origin) {
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = end;
  } else {
    runs_.push_back({end, origin});
  }
}

void Str::append(std::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  bytes_.append(bytes);
  add_run(bytes_.size(), origin);
}

void Str::append(const Str& other, size_t begin, size_t end) {
  if (begin >= end) return;
  auto run =
      std::upper_bound(other.runs_.begin(), other.runs_.end(), begin, [](size_t p, const Run& r) { return p < r.end; });
  const size_t shift = bytes_.size() - begin;
  bytes_.append(other.bytes_, begin, end - begin);
  for (;; ++run) {
    add_run(std::min(run->end, end) + shift, run->origin);
    if (run->end >= end) break;
  }
}

Str Str::slice(size_t begin, size_t end) const {
  Str part;
  part.append(*this, begin, end);
  return part;
}

void Str::stamp_turn(int turn) {
  if (turn < 0) return;
  std::vector<Run> old;
  old.swap(runs_);
  for (Run& run : old) {
    if (run.origin.turn < 0) run.origin.turn = turn;
    add_run(run.end, run.origin);
  }
}

void Str::mark_generation() {
  std::vector<Run> old;
  old.swap(runs_);
  for (Run& run : old) {
    run.origin.generation = true;
    add_run(run.end, run.origin);
  }
}

CodePoint code_point_at(std::string_view text, size_t position) {
  const Utf8Unit unit = read_utf8(text.substr(position));
  if (unit.kind != Utf8Unit::Kind::scalar) return {-1, 1};
  return {static_cast<int32_t>(unit.scalar), unit.size};
}

std::string encode_utf8(int32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(code_point, bytes);
  return {reinterpret_cast<const char*>(bytes), static_cast<size_t>(size)};
}

bool is_space(int32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

namespace {

// The code point that ends at byte `end` > 0.
CodePoint code_point_before(std::string_view text, size_t end) {
  for (size_t size = 1; size <= std::min<size_t>(4, end); ++size) {
    const CodePoint c = code_point_at(text.substr(0, end), end - size);
    if (c.value >= 0 && c.size == size) return c;
  }
  return {-1, 1};
}

template <class Predicate>
size_t prefix_size(std::string_view text, Predicate drop) {
  size_t i = 0;
  while (i < text.size()) {
    const CodePoint c = code_point_at(text, i);
    if (!drop(text.substr(i, c.size), c.value)) break;
    i += c.size;
  }
  return i;
}

template <class Predicate>
size_t suffix_size(std::string_view text, Predicate drop) {
  size_t end = text.size();
  while (end > 0) {
    const CodePoint c = code_point_before(text, end);
    if (!drop(text.substr(end - c.size, c.size), c.value)) break;
    end -= c.size;
  }
  return text.size() - end;
}

bool drop_space(std::string_view, int32_t value) {
  return is_space(value);
}

bool is_line_end(int32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

}  // namespace

size_t leading_space(std::string_view text) {
  return prefix_size(text, drop_space);
}
size_t trailing_space(std::string_view text) {
  return suffix_size(text, drop_space);
}

size_t length(std::string_view text) {
  size_t n = 0;
  for (size_t i = 0; i < text.size(); i += code_point_at(text, i).size) ++n;
  return n;
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t i = 0;
  while (index-- > 0 && i < text.size()) i += code_point_at(text, i).size;
  return i;
}

Str strip(const Str& text, Side side, std::optional<std::string_view> characters) {
  const auto drop = [&](std::string_view bytes, int32_t value) {
    return characters ? characters->find(bytes) != std::string_view::npos : is_space(value);
  };
  std::string_view rest = text.bytes();
  const size_t begin = side == Side::right ? 0 : prefix_size(rest, drop);
  rest.remove_prefix(begin);
  const size_t end = text.size() - (side == Side::left ? 0 : suffix_size(rest, drop));
  return text.slice(begin, end);
}

namespace {

std::vector<Str> split_at(const Str& text, std::string_view separator, int64_t max_splits, Side from) {
  const std::string& bytes = text.bytes();
  std::vector<std::pair<size_t, size_t>> parts;
  if (from == Side::left) {
    size_t begin = 0;
    for (size_t hit; max_splits-- != 0 && (hit = bytes.find(separator, begin)) != std::string::npos;) {
      parts.emplace_back(begin, hit);
      begin = hit + separator.size();
    }
    parts.emplace_back(begin, bytes.size());
  } else {
    size_t end = bytes.size();
    for (size_t hit; max_splits-- != 0 && end >= separator.size() &&
                     (hit = bytes.rfind(separator, end - separator.size())) != std::string::npos;) {
      parts.emplace_back(hit + separator.size(), end);
      end = hit;
    }
    parts.emplace_back(0, end);
    std::reverse(parts.begin(), parts.end());
  }
  std::vector<Str> result;
  for (const auto& [begin, end] : parts) result.push_back(text.slice(begin, end));
  return result;
}

std::vector<Str> split_at_space(const Str& text, int64_t max_splits, Side from) {
  const std::string_view bytes = text.bytes();
  const auto is_word = [](std::string_view, int32_t value) { return !is_space(value); };
  std::vector<Str> result;
  size_t begin = leading_space(bytes), end = bytes.size() - trailing_space(bytes.substr(begin));
  while (begin < end) {
    if (max_splits-- == 0) {  // the rest stays as it is, white space at its far end included
      result.push_back(from == Side::left ? text.slice(begin, bytes.size()) : text.slice(0, end));
      break;
    }
    const std::string_view rest = bytes.substr(begin, end - begin);
    if (from == Side::left) {
      const size_t word = prefix_size(rest, is_word);
      result.push_back(text.slice(begin, begin + word));
      begin += word + leading_space(rest.substr(word));
    } else {
      const size_t word = suffix_size(rest, is_word);
      result.push_back(text.slice(end - word, end));
      end -= word + trailing_space(rest.substr(0, rest.size() - word));
    }
  }
  if (from == Side::right) std::reverse(result.begin(), result.end());
  return result;
}

}  // namespace

std::vector<Str> split(const Str& text, std::optional<std::string_view> separator, int64_t max_splits, Side from) {
  return separator ? split_at(text, *separator, max_splits, from) : split_at_space(text, max_splits, from);
}

std::vector<Str> split_lines(const Str& text, bool keep_ends) {
  const std::string_view bytes = text.bytes();
  std::vector<Str> lines;
  for (size_t begin = 0, i = 0; i < bytes.size();) {
    const CodePoint c = code_point_at(bytes, i);
    const size_t line_end = i;
    i += c.size;
    if (is_line_end(c.value)) {
      if (c.value == '\r' && i < bytes.size() && bytes[i] == '\n') ++i;
      lines.push_back(text.slice(begin, keep_ends ? i : line_end));
      begin = i;
    } else if (i == bytes.size()) {
      lines.push_back(text.slice(begin, i));
    }
  }
  return lines;
}

namespace {

// Rewrites each code point; `map(value, first)` returns the new one. Origins stay with their characters.
template <class Map>
Str map_code_points(const Str& text, Map map) {
  Str result;
  const std::string_view bytes = text.bytes();
  size_t begin = 0;
  for (const Str::Run& run : text.runs()) {
    std::string out;
    while (begin < run.end) {
      const CodePoint c = code_point_at(bytes, begin);
      const int32_t mapped = c.value < 0 ? -1 : map(c.value);
      out += mapped == c.value ? std::string(bytes.substr(begin, c.size)) : encode_utf8(mapped);
      begin += c.size;
    }
    result.append(out, run.origin);
  }
  return result;
}

bool is_cased(int32_t c) {
  return utf8proc_tolower(c) != c || utf8proc_toupper(c) != c;
}

}  // namespace

Str change_case(const Str& text, Case to) {
  return map_code_points(text,
                         [to](int32_t c) { return to == Case::upper ? utf8proc_toupper(c) : utf8proc_tolower(c); });
}

Str title_words(const Str& text) {
  bool after_letter = false;
  return map_code_points(text, [&](int32_t c) {
    const int32_t mapped = after_letter ? utf8proc_tolower(c) : utf8proc_totitle(c);
    after_letter = is_cased(c);
    return mapped;
  });
}

Str capitalize(const Str& text) {
  bool first = true;
  return map_code_points(
      text, [&](int32_t c) { return std::exchange(first, false) ? utf8proc_totitle(c) : utf8proc_tolower(c); });
}

}  // namespace nibble::text::jinja
