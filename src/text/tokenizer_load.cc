// From the two files to Tokenizer::Data.
#include <boost/unordered/unordered_flat_map.hpp>

#include "text/byte_alphabet.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_settings.h"

namespace nibble::text {
namespace {

constexpr std::string_view kVocab = "tokenizer.json: model.vocab";
constexpr std::string_view kMerges = "tokenizer.json: model.merges";

// Ids by the letters of the token, as both tables of the file write them.
using LetterIndex = boost::unordered_flat_map<std::string_view, int32_t>;

Result<LetterIndex> index_letters(const std::vector<TokenizerJson::Token>& tokens) {
  LetterIndex ids;
  ids.reserve(tokens.size());
  for (const auto& token : tokens) {
    if (!ids.emplace(token.letters, token.id).second) {
      return corrupt("{}: expected each token once, got \"{}\" twice", kVocab, token.letters);
    }
  }
  return ids;
}

// Bytes that text in UTF-8 never holds may lack a token.
bool occurs_in_utf8(int byte) {
  return byte != 0xC0 && byte != 0xC1 && byte < 0xF5;
}

Result<std::array<int32_t, 256>> find_byte_ids(const LetterIndex& ids) {
  std::array<int32_t, 256> byte_ids;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(letter_of_byte(static_cast<uint8_t>(byte)));
    byte_ids[byte] = found == ids.end() ? -1 : found->second;
    if (byte_ids[byte] < 0 && occurs_in_utf8(byte)) {
      return unsupported("{}: expected a token for every byte, got none for {:#04x}", kVocab, byte);
    }
  }
  return byte_ids;
}

// Tokens of letters stand for bytes; one with other characters can only be an added token, or never occur.
Status fill_plain(const std::vector<TokenizerJson::Token>& tokens, Vocabulary& vocabulary) {
  for (const auto& token : tokens) {
    if (vocabulary.kind(token.id) != Vocabulary::Kind::unknown) {
      return corrupt("{}: expected each id once, got {} for \"{}\" too", kVocab, token.id, token.letters);
    }
    vocabulary.set(token.id, bytes_from_letters(token.letters).value_or(token.letters), Vocabulary::Kind::plain);
  }
  return {};
}

// An added token may stand in the vocabulary too, but then with the same id.
Status fill_added(const std::vector<AddedToken>& added, const LetterIndex& ids, Vocabulary& vocabulary) {
  for (const AddedToken& token : added) {
    const auto same = ids.find(token.content);
    const bool listed = same != ids.end() && same->second == token.id;
    const bool contradicts = same != ids.end() && !listed;
    const bool taken = !listed && vocabulary.kind(token.id) != Vocabulary::Kind::unknown;
    if (contradicts || taken) {
      return corrupt("{}: expected the vocabulary and the added tokens to agree, got two meanings for {} or \"{}\"",
                     kVocab, token.id, token.content);
    }
    vocabulary.set(token.id, token.content, token.special ? Vocabulary::Kind::special : Vocabulary::Kind::added);
  }
  return {};
}

Status fill_merges(const std::vector<TokenizerJson::Merge>& merges, const LetterIndex& ids, Bpe& bpe) {
  std::string whole;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    whole.assign(left).append(right);
    const auto l = ids.find(left), r = ids.find(right), w = ids.find(whole);
    for (const auto& [found, letters] :
         {std::pair(l, &left), std::pair(r, &right), std::pair(w, &std::as_const(whole))}) {
      if (found == ids.end())
        return corrupt("{}[{}]: expected tokens of the vocabulary, got \"{}\"", kMerges, rank, *letters);
    }
    if (!bpe.add_merge(l->second, r->second, w->second)) {
      return corrupt("{}[{}]: expected each pair once, got \"{}\" \"{}\" again", kMerges, rank, left, right);
    }
  }
  return {};
}

// Most words of real text are one token. Telling the encoder which tokens its merges lead to saves it those merges;
// with ignore_merges, every token is such a word.
void fill_words(const std::vector<TokenizerJson::Token>& tokens, bool ignore_merges, const Vocabulary& vocabulary,
                Bpe& bpe) {
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  for (const auto& token : tokens) {
    const std::string_view word = vocabulary.bytes(token.id);
    if (vocabulary.kind(token.id) != Vocabulary::Kind::plain || bytes_from_letters(token.letters) != word) continue;
    ids.clear();
    if (!ignore_merges) bpe.encode(word, scratch, ids);
    if (ignore_merges || (ids.size() == 1 && ids[0] == token.id)) bpe.add_word(word, token.id);
  }
}

Result<Json> read_config(std::string_view json) {
  if (json.empty()) return Json();
  return parse_json(json, "tokenizer_config.json", {.max_depth = 32});
}

Result<std::optional<int32_t>> find_eos(const std::optional<std::string>& eos, const AddedTokenTrie& added,
                                        const LetterIndex& ids) {
  if (!eos) return std::optional<int32_t>();
  if (const auto id = added.id(*eos)) return id;
  if (const auto found = ids.find(*eos); found != ids.end()) return std::optional(found->second);
  return corrupt("tokenizer_config.json: eos_token: expected a token of the vocabulary, got \"{}\"", *eos);
}

}  // namespace

Result<Tokenizer> Tokenizer::parse(std::string_view tokenizer_json, std::string_view tokenizer_config_json) {
  NIBBLE_TRY(file, read_tokenizer_json(tokenizer_json));
  NIBBLE_TRY(config, read_config(tokenizer_config_json));
  return assemble(file, config);
}

Result<Tokenizer> Tokenizer::assemble(const TokenizerJson& file, const Json& config) {
  NIBBLE_TRY(settings, read_tokenizer_settings(file.settings, config));
  NIBBLE_TRY(ids, index_letters(file.vocab));
  NIBBLE_TRY(byte_ids, find_byte_ids(ids));

  const auto data = std::make_shared<Data>(settings.added, byte_ids);
  data->nfc = settings.nfc;
  for (const std::string& pattern : settings.split_patterns) {
    NIBBLE_TRY(split, SplitPattern::compile(pattern, "tokenizer.json: pre_tokenizer: pattern"));
    data->splits.push_back(std::move(split));
  }
  NIBBLE_RETURN_IF_ERROR(fill_plain(file.vocab, data->vocabulary));
  NIBBLE_RETURN_IF_ERROR(fill_added(settings.added, ids, data->vocabulary));
  NIBBLE_RETURN_IF_ERROR(fill_merges(file.merges, ids, data->bpe));
  fill_words(file.vocab, settings.ignore_merges, data->vocabulary, data->bpe);
  NIBBLE_TRY(eos, find_eos(settings.eos_token, data->added, ids));
  data->eos = eos;
  return Tokenizer(data);
}

Result<Tokenizer> Tokenizer::load(const Path& dir) {
  NIBBLE_TRY(json, read_file(dir / "tokenizer.json", kMaxTokenizerBytes));
  std::string config;
  if (std::error_code ignored; std::filesystem::exists(dir / "tokenizer_config.json", ignored)) {
    NIBBLE_TRY(text, read_file(dir / "tokenizer_config.json", kMaxTokenizerBytes));
    config = std::move(text);
  }
  return parse(json, config);
}

}  // namespace nibble::text
