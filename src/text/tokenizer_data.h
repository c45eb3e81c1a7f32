// What a Tokenizer shares between its copies. Private to tokenizer*.cc.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/split_pattern.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace nibble::text {

struct Tokenizer::Data {
  Data(const std::vector<AddedToken>& added_tokens, const std::array<int32_t, 256>& byte_ids)
      : added(added_tokens), bpe(byte_ids) {}
  Data(const Data&) = delete;  // bpe refers to bytes of vocabulary
  Data& operator=(const Data&) = delete;

  Vocabulary vocabulary;
  AddedTokenTrie added;
  bool nfc = false;
  std::vector<SplitPattern> splits;
  Bpe bpe;
  std::optional<int32_t> eos;
};

}  // namespace nibble::text
