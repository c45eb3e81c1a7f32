// Pattern: a regular expression (PCRE2, UTF, Unicode properties) whose search cannot run away.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/span.h"

namespace nibble::text {

/// One match: the whole first, then the groups in the order of their opening brackets.
using Match = std::vector<Span>;

/// A compiled pattern, with JIT where the machine allows it. Immutable; all methods are safe from any thread.
///
/// Searches take valid UTF-8, else they are `invalid_argument`. They are `unavailable` when one place of the text takes
/// more than 50,000 steps of backtracking: that is an error, never a pass. Spans lie on the borders of characters.
class Pattern {
 public:
  /// `where` names the pattern in errors, which are `corrupt`: no regular expression, or more than 64 KiB of it.
  static Result<Pattern> compile(std::string_view pattern, std::string_view where);

  /// Whether the pattern matches anywhere.
  Result<bool> matches(std::string_view text) const;

  Result<std::optional<Match>> first_match(std::string_view text) const;

  /// All matches from left to right, none inside another; behind an empty one the search goes on a character further.
  Result<std::vector<Match>> all_matches(std::string_view text) const;

 private:
  Pattern(std::shared_ptr<const void> code, std::string_view where) : code_(std::move(code)), where_(where) {}

  Status find_from(std::string_view text, bool all, std::vector<Match>& matches) const;

  std::shared_ptr<const void> code_;  // pcre2_code
  std::string where_;
};

}  // namespace nibble::text
