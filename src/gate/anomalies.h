// What the detectors find in a reply whatever the case expects: the cross-cutting gates count it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gate/recipe.h"
#include "gate/record.h"
#include "text/encoding_check.h"

namespace nibble::gate {

/// Whether a detector or a family of that name is there: one of text/detect.h, or one that Detectors finds.
bool is_detector(std::string_view name);

/// What the detectors must know of a run and of a case. Safe from any thread after it is made.
class Detectors {
 public:
  /// `thinking_off`: reasoning is then an anomaly, too. `foreign`: a server of others, whose breaches of the stream's
  /// order only warn.
  static Result<Detectors> make(const Recipe& recipe, bool thinking_off, bool foreign);

  /// Of one message: think, md, tag, role, confirm, encoding, repetition, prompt_leak, wrong_name, hidden_thinking,
  /// stream_order, and
  ///   healed_call  a call that the server had to close itself
  ///   broken_call  a call whose arguments are no JSON object: a piece of it was lost
  ///   swallowed    text or a call that never came: finish_reason tool_calls without a call, or more tokens counted
  ///                than the reply has bytes
  ///   runaway      kRunawayWords or more, cut off at the token limit, and not for going in circles
  /// emoji, url, truncated (finish_reason length) and slow (kSlowMs to the first token) are warnings. `context` is all
  /// that was said before (context_text): a name that stands there is no wrong one. Fails where a detector gives no
  /// verdict.
  Result<std::vector<Anomaly>> of_message(const PlayedMessage& message, const std::string& system,
                                          const std::string& context) const;

  /// Of a whole turn: phantom (claims an action, no call in the turn), tool_loop (the same call twice, or more than
  /// kMaxRounds rounds), empty (nothing to hear, and nothing swallowed), stuck (without a call, the reply before again
  /// though the user said other words). `before`: the turn before, or null.
  Result<std::vector<Anomaly>> of_turn(const PlayedTurn& turn, const PlayedTurn* before) const;

  /// Words that may stand where a name is said: the persona's, and the recipe's context_words.
  const std::vector<std::string>& names() const { return names_; }

  static constexpr size_t kMaxRounds = 4;
  static constexpr size_t kRunawayWords = 100;
  static constexpr double kSlowMs = 5000;  // after as long voice clients give a request up

 private:
  Detectors(text::EncodingCheck encoding, std::vector<std::string> names, bool thinking_off, bool foreign)
      : encoding_(std::move(encoding)), names_(std::move(names)), thinking_off_(thinking_off), foreign_(foreign) {}

  text::EncodingCheck encoding_;
  std::vector<std::string> names_;  // that may stand where a name is said
  bool thinking_off_, foreign_;
};

}  // namespace nibble::gate
