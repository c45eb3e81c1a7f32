// ModulePattern: a regular expression over module names, as configs that PEFT wrote hold them.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"

namespace nibble::checkpoint {

/// A compiled pattern. The files' dialect is Python's, the engine is PCRE2; over the ASCII names of modules both read
/// such patterns alike. Immutable; all methods are safe from any thread.
class ModulePattern {
 public:
  /// `where` names the pattern in errors. `corrupt` for what is no regular expression or has more than 64 KiB.
  static Result<ModulePattern> compile(std::string_view pattern, std::string_view where);

  /// Whether the whole name matches (re.fullmatch). `unsupported` when that takes too many steps to find out.
  Result<bool> matches(std::string_view module) const;

 private:
  explicit ModulePattern(std::shared_ptr<const void> code) : code_(std::move(code)) {}
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace nibble::checkpoint
