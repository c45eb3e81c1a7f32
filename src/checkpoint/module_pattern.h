// ModulePattern: a regular expression over module names, as configs of PEFT and compressed-tensors hold them.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/result.h"

namespace nibble::checkpoint {

/// A compiled pattern. The files' dialect is Python's, the engine is PCRE2; over the ASCII names of modules both read
/// such patterns alike. Immutable; all methods are safe from any thread.
class ModulePattern {
 public:
  /// What of a name must match: all of it (Python's re.fullmatch), or some beginning (re.match).
  enum class Extent : uint8_t { whole, start };

  /// `where` names the pattern in errors. `corrupt` for what is no regular expression or has more than 64 KiB.
  static Result<ModulePattern> compile(std::string_view pattern, std::string_view where, Extent extent = Extent::whole);

  /// Whether the name matches. `unsupported` when that takes too many steps to find out.
  Result<bool> matches(std::string_view module) const;

 private:
  explicit ModulePattern(std::shared_ptr<const void> code) : code_(std::move(code)) {}
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace nibble::checkpoint
