// The Split pre-tokenizer: a regular expression, read from tokenizer.json, that cuts text into the pieces that BPE may
// not cross.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace nibble::text {

/// A compiled pattern. Immutable; all methods are safe from any thread.
///
/// The file's dialect is Oniguruma's, the engine is PCRE2 (JIT where the machine allows it). What both read alike is
/// taken as it stands; \s is rewritten to Unicode's White_Space, because PCRE2 counts U+180E too; what they read
/// differently, or might, is `unsupported` (\w, \b, \v, ^, $, nested and intersected classes, named groups, verbs,
/// inline options other than (?i:…), patterns that match the empty string).
class SplitPattern {
 public:
  /// `where` names the pattern in errors.
  static Result<SplitPattern> compile(std::string_view pattern, std::string_view where);

  /// Appends the pieces of valid UTF-8 `text`: its matches and, between them, what did not match (behaviour
  /// "Isolated"). Concatenated they are the text; none is empty. `unsupported` when one match takes more than 10^7 + 16
  /// * text.size() steps of backtracking, which the Qwen patterns never do.
  Status split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  explicit SplitPattern(std::shared_ptr<const void> code) : code_(std::move(code)) {}
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace nibble::text
