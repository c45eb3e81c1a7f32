// What the speed bench asks: prompts of a wanted number of tokens, made of plain words without a tokenizer, and what a
// user says in a spoken conversation. All of it depends on the seed and on numbers alone, not on the server.
#pragma once

#include <cstdint>
#include <string>

#include "io/json.h"

namespace nibble::gate {

/// tokens = base + per_word * words, a line through what the server counted in two prompts.
struct PromptSizes {
  double base = 20, per_word = 1.2;
  bool measured = false;  // else the two above are guesses

  /// Leaves the guesses where the counts (usage.prompt_tokens, negative where not given) make no line that rises.
  static PromptSizes through(int64_t words_a, int64_t tokens_a, int64_t words_b, int64_t tokens_b);

  /// Of a prompt with so many tokens; at least 1.
  int64_t words(int64_t tokens) const;
};

/// A system message of so many words after a first line that says which prefix it is, then a user's last line. Two
/// prompts of one prefix share all but the last line, which depends on `number`; of two prefixes they share nothing
/// but the words of the template.
Json sized_messages(uint64_t seed, uint64_t prefix, uint64_t number, int64_t words);

/// How a spoken conversation begins, and what the user says in its turn, from 1.
Json voice_system_message(uint64_t seed, uint64_t conversation);
std::string voice_line(int64_t turn);

}  // namespace nibble::gate
