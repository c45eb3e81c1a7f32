#include "text/stream_decoder.h"

#include <utility>

#include "text/utf8.h"

namespace nibble::text {

std::string StreamDecoder::feed(int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  held_ += tokenizer_.bytes_of(id);
  const size_t ready = complete_prefix(held_);
  std::string text = sanitize_utf8(std::string_view(held_).substr(0, ready));
  held_.erase(0, ready);
  return text;
}

std::string StreamDecoder::finish() {
  return sanitize_utf8(std::exchange(held_, {}));
}

}  // namespace nibble::text
