#include "text/tokenizer.h"

#include <utility>

#include "text/nfc.h"
#include "text/tokenizer_data.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

constexpr size_t kMaxText = size_t{1} << 30;  // keeps every index of a piece within 32 bits, NFC's growth included

}  // namespace

struct Tokenizer::Scratch {
  std::vector<std::string_view> pieces, finer;
  Bpe::Scratch bpe;
};

// Text without added tokens.
Status Tokenizer::encode_text(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const {
  std::string normal;
  if (data_->nfc && !surely_nfc(text)) text = normal = nfc(text);

  scratch.pieces.assign({text});
  for (const SplitPattern& pattern : data_->splits) {
    scratch.finer.clear();
    for (const std::string_view piece : scratch.pieces) NIBBLE_RETURN_IF_ERROR(pattern.split(piece, scratch.finer));
    scratch.pieces.swap(scratch.finer);
  }
  for (const std::string_view word : scratch.pieces) data_->bpe.encode(word, scratch.bpe, out);
  return {};
}

Status Tokenizer::encode(std::string_view text, AddedTokens added, std::vector<int32_t>& out) const {
  if (text.size() > kMaxText) {
    return invalid_argument("text to encode: expected at most {} bytes, got {}", kMaxText, text.size());
  }
  std::string repaired;
  if (!valid_utf8(text)) text = repaired = sanitize_utf8(text);

  const size_t size_before = out.size();
  Scratch scratch;
  for (size_t at = 0; at < text.size();) {
    AddedTokenTrie::Match match = {text.size(), 0, -1};
    if (added == AddedTokens::parse) match = data_->added.find(text, at);
    if (Status status = encode_text(text.substr(at, match.at - at), scratch, out); !status.ok()) {
      out.resize(size_before);
      return status;
    }
    if (match.size > 0) out.push_back(match.id);
    at = match.at + match.size;
  }
  return {};
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!(skip_special && is_special(id))) bytes += bytes_of(id);
  }
  return sanitize_utf8(bytes);
}

std::string_view Tokenizer::bytes_of(int32_t id) const {
  return data_->vocabulary.bytes(id);
}

AddedTokenMatch Tokenizer::find_added_token(std::string_view text, size_t from) const {
  const AddedTokenTrie::Match match = data_->added.find(text, from);
  return {match.at, match.size, match.id};
}

std::optional<int32_t> Tokenizer::added_token(std::string_view content) const {
  return data_->added.id(content);
}

bool Tokenizer::known(int32_t id) const {
  return data_->vocabulary.kind(id) != Vocabulary::Kind::unknown;
}

bool Tokenizer::is_added(int32_t id) const {
  return data_->vocabulary.kind(id) == Vocabulary::Kind::added || is_special(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return data_->vocabulary.kind(id) == Vocabulary::Kind::special;
}

int32_t Tokenizer::id_limit() const {
  return data_->vocabulary.id_limit();
}

std::optional<int32_t> Tokenizer::eos() const {
  return data_->eos;
}

}  // namespace nibble::text
