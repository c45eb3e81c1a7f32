// What a tokenizer is configured to do, from the small parts of tokenizer.json and from tokenizer_config.json.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/json.h"
#include "text/added_tokens.h"

namespace nibble::text {

struct TokenizerSettings {
  bool nfc = false;                         // normalize to NFC before splitting
  std::vector<std::string> split_patterns;  // applied one after the other, each to the pieces of the one before
  bool ignore_merges = false;               // a word in the vocabulary is that token, whatever the merges say
  std::vector<AddedToken> added;            // ids and contents unique, ids 0..kMaxTokenId
  std::optional<std::string> eos_token;
};

/// `tokenizer` is tokenizer.json without its tables, `config` tokenizer_config.json or null. Added tokens are merged by
/// id from both files; where they differ in "special", the config wins, as in transformers.
///
/// `unsupported`, with the place and the value, for whatever nibble does not do: normalizers but NFC, pre-tokenizers
/// but Split (Regex, Isolated) and ByteLevel, models but BPE, its dropout, unk_token, byte_fallback, prefix and suffix,
/// decoders but ByteLevel, post-processors that add tokens, added tokens with lstrip, rstrip, single_word or
/// normalized. `corrupt` for wrong types, missing parts and contradictions. "truncation" and "padding" are left to the
/// caller, who knows the context.
Result<TokenizerSettings> read_tokenizer_settings(const Json& tokenizer, const Json& config);

}  // namespace nibble::text
