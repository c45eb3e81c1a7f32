#include "text/examined_text.h"

#include "text/markdown.h"
#include "text/nfc.h"
#include "text/utf8.h"

namespace nibble::text {

Result<std::string> examined_text(std::string_view text) {
  if (!valid_utf8(text)) return invalid_argument("detector: text: expected UTF-8, got other bytes");
  const std::string composed = surely_nfc(text) ? std::string(text) : nfc(text);
  std::string_view rest = composed;
  constexpr std::string_view kApostrophe = "\u2019";
  std::string out;
  while (true) {
    const size_t next = rest.find(kApostrophe);
    out += rest.substr(0, next);
    if (next == rest.npos) return out;
    out += '\'';
    rest.remove_prefix(next + kApostrophe.size());
  }
}

Result<std::string> examined_words(std::string_view text) {
  if (!valid_utf8(text)) return examined_text(text);
  return examined_text(strip_markdown(text));
}

}  // namespace nibble::text
