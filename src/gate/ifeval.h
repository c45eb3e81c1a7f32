// The verifiable instructions of IFEval (J. Zhou et al., "Instruction-Following Evaluation for Large Language Models",
// 2023): 25 types, each a rule that a program can check on a reply. The checkers are written from the rules of
// google-research's instruction_following_eval and give its verdicts, but for three types:
//   length_constraints:number_sentences  counts by text/sentences.h, not by a trained splitter: a point more or less
//   language:response_language           guesses by text/language.h; so do the two english_* types. A text that it
//                                        cannot tell counts as followed, as there
//   change_case:capital_word_frequency   tokens by gate/ifeval_text.h, not by a tokenizer with rules for each ending
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/json.h"

namespace nibble::gate {

/// Changes whenever a checker may give another verdict.
inline constexpr int kIfevalCheckers = 1;

/// One instruction with its arguments. Immutable, safe from any thread.
class Instruction {
 public:
  /// `arguments` are the benchmark's kwargs; members that are null count as absent. `corrupt`, beginning with `where`,
  /// for a type that is none of the 25, an argument that is missing, unknown or of another shape, and a language that
  /// text::guess_language does not tell.
  static Result<Instruction> parse(const std::string& id, const Json& arguments, const std::string& where);

  /// Whether the reply follows it; an empty reply does not. `unavailable` where a search runs away.
  Result<bool> strict(std::string_view reply) const;
  /// Whether it does, or does without *, or without its first line, its last, or both, with or without *.
  Result<bool> loose(std::string_view reply) const;

  const std::string& id() const { return id_; }
  /// "keywords:existence {"keywords":["lake"]}", for messages.
  std::string describe() const;

  using Check = std::function<Result<bool>(std::string_view text)>;

 private:
  Instruction(std::string id, std::string arguments, Check check)
      : id_(std::move(id)), arguments_(std::move(arguments)), check_(std::move(check)) {}

  std::string id_;
  std::string arguments_;  // compact JSON
  Check check_;            // of a text that is not blank
};

/// The 25 types, in the order of docs/gates.md.
std::vector<std::string_view> instruction_types();

}  // namespace nibble::gate
