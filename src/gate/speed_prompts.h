// What the speed bench asks: prompts of a wanted number of tokens, made of plain words without a tokenizer, and what a
// user says in a spoken conversation. All of it depends on the seed and on numbers alone, not on the server.
#pragma once

#include <cstdint>
#include <string>

#include "io/json.h"

namespace nibble::gate {

/// What makes a prompt longer.
struct PromptShape {
  int64_t words = 1;
  int64_t digits = 0;  // more in the number of its prefix; to most tokenizers each is a token
  bool operator==(const PromptShape&) const = default;
};

/// tokens = base + per_word * words, a line through what the server counted in two prompts.
struct PromptSizes {
  double base = 20, per_word = 1.2;
  bool measured = false;  // else the two above are guesses

  /// Leaves the guesses where the counts (usage.prompt_tokens, negative where not given) make no line that rises.
  static PromptSizes through(int64_t words_a, int64_t tokens_a, int64_t words_b, int64_t tokens_b);

  /// Of a prompt with so many tokens; at least 1.
  int64_t words(int64_t tokens) const;
  /// What is nearer to a prompt of which `missing` tokens are missing: other digits where few of them do, else words.
  PromptShape nearer(PromptShape shape, int64_t missing) const;
};

/// A system message of so many words after a first line with the number of the prefix, then a user's last line with
/// `number`. Two prompts of one prefix differ in the latter number alone. Two prefixes differ from the number in their
/// first line on, behind which no cache of prefixes finds anything: what follows may be the same, so that prompts of
/// one shape have as many tokens whatever their numbers, which are equally long.
Json sized_messages(uint64_t seed, uint64_t prefix, uint64_t number, const PromptShape& shape);

/// How a spoken conversation begins, and what the user says in its turn, from 1.
Json voice_system_message(uint64_t seed, uint64_t conversation);
std::string voice_line(int64_t turn);

}  // namespace nibble::gate
