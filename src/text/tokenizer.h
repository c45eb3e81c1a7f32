// The tokenizer of a Qwen3.5 model: byte-level BPE as tokenizer.json describes it.
//
// Text becomes ids in five steps: (1) added tokens are cut out, literally, the longest first; what lies between them is
// (2) brought to NFC, (3) cut into words by the file's Split pattern, (4) taken as bytes, (5) merged by rank. No token
// is added at either end. Ids become text by concatenating the bytes of the tokens and replacing what is not UTF-8.
//
// The reference is HF tokenizers. Each side has its own Unicode tables, which shows in two rare places: combining marks
// newer than Unicode 9 are put into canonical order here and left alone there, and characters newer than PCRE2's tables
// (Unicode 14 in 10.42) are letters there and unassigned here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "io/json.h"

namespace nibble::text {

struct TokenizerJson;

/// What encode() does with text that reads like an added token.
enum class AddedTokens : uint8_t {
  parse,   // "<|im_start|>" is the control token: for text that a chat template wrote
  ignore,  // "<|im_start|>" is twelve characters: for text that people, documents and tools wrote
};

/// Text that reads like an added token; id -1 and size 0 where there is none.
struct AddedTokenMatch {
  size_t at = 0, size = 0;
  int32_t id = -1;
};

/// Immutable; copies share their data. All methods are safe from any thread.
class Tokenizer {
 public:
  /// Reads DIR/tokenizer.json and, where it exists, DIR/tokenizer_config.json: its added_tokens_decoder is merged into
  /// the added tokens, its eos_token becomes eos(). `corrupt` for broken files, `unsupported` for sound ones that ask
  /// for something else than the steps above (tokenizer_settings.h lists it).
  static Result<Tokenizer> load(const Path& dir);
  /// The same from the files' contents; an empty config stands for none.
  static Result<Tokenizer> parse(std::string_view tokenizer_json, std::string_view tokenizer_config_json);
  /// The same from a tokenizer.json that is taken apart already, or was never one; a null config stands for none.
  static Result<Tokenizer> assemble(const TokenizerJson& file, const Json& config);

  /// Appends the ids of the text. Bytes that are not UTF-8 are first replaced by U+FFFD (utf8.h), as the reference
  /// tokenizer's strings cannot hold them. O(n log n). Fails, leaving `out` as it was, only for text beyond 1 GiB
  /// (`invalid_argument`) and for a Split pattern that runs into its limits (split_pattern.h).
  Status encode(std::string_view text, AddedTokens added, std::vector<int32_t>& out) const;

  /// UTF-8, always valid. Ids that are not known contribute nothing; nor do special tokens where they are skipped.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  /// The token's bytes, which need not be whole characters; added tokens as they are written; empty if not known. The
  /// view lives as long as any copy of this tokenizer.
  std::string_view bytes_of(int32_t id) const;

  /// The added token with this content.
  std::optional<int32_t> added_token(std::string_view content) const;

  /// The leftmost text at or after `from` that reads like an added token, the longest of those that begin there.
  AddedTokenMatch find_added_token(std::string_view text, size_t from) const;

  bool known(int32_t id) const;
  bool is_added(int32_t id) const;
  /// An added token that is control, not text. "<think>" and "<tool_call>" are added but not special.
  bool is_special(int32_t id) const;

  /// Largest id + 1. Not every id below it is known, and a model's vocabulary may be larger.
  int32_t id_limit() const;
  std::optional<int32_t> eos() const;

 private:
  struct Data;
  struct Scratch;
  explicit Tokenizer(std::shared_ptr<const Data> data) : data_(std::move(data)) {}

  Status encode_text(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const;

  std::shared_ptr<const Data> data_;
};

}  // namespace nibble::text
