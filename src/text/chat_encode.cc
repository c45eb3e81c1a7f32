#include "text/chat_encode.h"

#include <algorithm>

namespace nibble::text {
namespace {

// What an assistant says is trusted, but not the arguments of its calls: they quote users, and a tag in a quote would
// end the call that holds it.
bool is_trusted(const Piece& piece, const Rendered& rendered) {
  if (piece.field == Field::literal) return true;
  if (piece.field != Field::content && piece.field != Field::reasoning) return false;
  return piece.message >= 0 && rendered.roles[static_cast<size_t>(piece.message)] == "assistant";
}

// Whether all pieces that [begin, end) touches are trusted. The pieces cover the text in order.
bool is_trusted(const Rendered& rendered, size_t begin, size_t end) {
  auto piece = std::upper_bound(rendered.pieces.begin(), rendered.pieces.end(), begin,
                                [](size_t at, const Piece& p) { return at < p.end; });
  for (; piece != rendered.pieces.end() && piece->begin < end; ++piece) {
    if (!is_trusted(*piece, rendered)) return false;
  }
  return true;
}

Status encode_range(const Tokenizer& tokenizer, const Rendered& rendered, bool allow_control_text, size_t begin,
                    size_t end, std::vector<int32_t>& out) {
  const std::string_view text = std::string_view(rendered.text).substr(0, end);
  if (allow_control_text) return tokenizer.encode(text.substr(begin), AddedTokens::parse, out);
  size_t plain = begin;  // where the text that is not encoded yet begins
  for (size_t from = begin; from < end;) {
    const AddedTokenMatch match = tokenizer.find_added_token(text, from);
    if (match.id < 0) break;
    from = match.at + 1;
    if (!is_trusted(rendered, match.at, match.at + match.size)) continue;
    NIBBLE_RETURN_IF_ERROR(tokenizer.encode(text.substr(plain, match.at - plain), AddedTokens::ignore, out));
    out.push_back(match.id);
    from = plain = match.at + match.size;
  }
  return tokenizer.encode(text.substr(plain), AddedTokens::ignore, out);
}

}  // namespace

Status encode_rendered(const Tokenizer& tokenizer, const Rendered& rendered, bool allow_control_text,
                       std::vector<int32_t>& out) {
  return encode_range(tokenizer, rendered, allow_control_text, 0, rendered.text.size(), out);
}

Status encode_rendered(const Tokenizer& tokenizer, const Rendered& rendered, bool allow_control_text,
                       std::span<const size_t> cuts, std::vector<int32_t>& out, std::vector<size_t>& tokens_before) {
  const size_t first = out.size();
  size_t begin = 0;
  for (const size_t cut : cuts) {
    NIBBLE_CHECK(begin <= cut && cut <= rendered.text.size());
    NIBBLE_RETURN_IF_ERROR(encode_range(tokenizer, rendered, allow_control_text, begin, cut, out));
    tokens_before.push_back(out.size() - first);
    begin = cut;
  }
  return encode_range(tokenizer, rendered, allow_control_text, begin, rendered.text.size(), out);
}

}  // namespace nibble::text
