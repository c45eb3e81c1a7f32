#include "text/words.h"

#include "text/characters.h"
#include "text/markdown.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

bool is_joiner(char32_t scalar) {
  return scalar == 0x200C || scalar == 0x200D;
}

}  // namespace

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> out;
  size_t begin = 0, end = 0;  // of the word under way; joiners behind `end` wait for a letter
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = read_utf8(text.substr(at));
    const bool part = unit.kind == Utf8Unit::Kind::scalar &&
                      (is_letter(unit.scalar) || is_mark(unit.scalar) || is_digit(unit.scalar));
    if (part && !inside) begin = at;
    at += unit.size;
    if (part) {
      inside = true;
      end = at;
    } else if (inside && !is_joiner(unit.scalar)) {
      inside = false;
      out.push_back(text.substr(begin, end - begin));
    }
  }
  if (inside) out.push_back(text.substr(begin, end - begin));
  return out;
}

bool speakable(std::string_view text) {
  const std::string plain = strip_markdown(text);
  for (std::string_view rest = plain; !rest.empty();) {
    const Utf8Unit unit = read_utf8(rest);
    if (unit.kind == Utf8Unit::Kind::scalar && (is_letter(unit.scalar) || is_digit(unit.scalar))) return true;
    rest.remove_prefix(unit.size);
  }
  return false;
}

}  // namespace nibble::text
