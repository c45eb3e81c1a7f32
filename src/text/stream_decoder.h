// Text from ids as they are generated.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace nibble::text {

/// For one sequence of ids, the pieces concatenated are Tokenizer::decode of the sequence, and no piece ends inside a
/// character: the bytes of one that a later token may complete are held back. Used by one thread at a time.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  /// The text that became certain with this id; may be empty.
  std::string feed(int32_t id);

  /// What is held back, as one U+FFFD, or nothing. Afterwards the decoder is ready for another sequence.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string held_;  // at most three bytes
};

}  // namespace nibble::text
