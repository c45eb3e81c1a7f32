// Characters that no reply should hold: broken ones, and those of a writing system that nobody asked for.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/detect.h"
#include "text/pattern.h"

namespace nibble::text {

/// The scripts that a reply may use. Common (punctuation, digits) and Inherited (joiners, accents) always belong to
/// them. Immutable, safe from any thread.
class EncodingCheck {
 public:
  /// Names of Unicode scripts: "Latin", "Kannada". invalid_argument for what is none.
  static Result<EncodingCheck> for_scripts(std::span<const std::string> scripts);
  static Result<EncodingCheck> for_scripts() { return for_scripts(default_scripts()); }

  static std::span<const std::string> default_scripts();  // Latin, Kannada, Devanagari

  /// By detector, then by place; a run of such characters is one hit. Pictographs are left to the emoji detector, even
  /// those newer than the library's tables.
  ///   encoding.broken   U+FFFD, controls below U+0020 but \n and \t, unassigned and private-use characters
  ///   encoding.script   other scripts
  /// invalid_argument where `text` is not UTF-8.
  Result<std::vector<Detection>> detect(std::string_view text) const;

 private:
  EncodingCheck(Pattern broken, Pattern script) : broken_(std::move(broken)), script_(std::move(script)) {}
  Pattern broken_, script_;
};

}  // namespace nibble::text
