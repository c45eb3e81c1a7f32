// The bytes of tokenizer.json, taken apart but not yet understood.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/json.h"

namespace nibble::text {

// A published Qwen3.5 file has 20 MB, 248,044 tokens and 247,587 merges.
inline constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
inline constexpr size_t kMaxTokens = 1'000'000;
inline constexpr size_t kMaxMerges = 4'000'000;  // several may make the same token
inline constexpr size_t kMaxTokenBytes = 4096;
inline constexpr int32_t kMaxTokenId = (1 << 21) - 1;

struct TokenizerJson {
  struct Token {
    std::string letters;  // as written, in the alphabet of byte_alphabet.h; not empty
    int32_t id;           // 0..kMaxTokenId
  };
  struct Merge {
    std::string left, right;  // likewise
  };
  Json settings;              // the document; model.vocab and model.merges are null in it
  std::vector<Token> vocab;   // in file order, duplicates not yet refused
  std::vector<Merge> merges;  // by rank; written as ["a", "b"] or "a b"
};

/// Linear in the file's size; the limits above hold for what it returns.
Result<TokenizerJson> read_tokenizer_json(std::string_view json);

}  // namespace nibble::text
