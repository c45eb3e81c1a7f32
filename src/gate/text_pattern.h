// A text that a reply may hold, or a regular expression that it may match.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "io/json.h"
#include "text/pattern.h"

namespace nibble::gate {

struct TextPattern {
  std::string text;                    // as it was written, for reports
  std::string folded;                  // what to look for, case-folded; unused with a regex
  std::optional<text::Pattern> regex;  // over the examined text (text/examined_text.h)

  /// A string, or {"~": regex}; `corrupt` for anything else and for a broken regex.
  static Result<TextPattern> parse(const Json& json, const std::string& where);

  /// Whether `text` holds it, both as text/examined_text.h shows them, a text whatever its case. An error where a regex
  /// hits its match limit or the text is not UTF-8.
  Result<bool> in(std::string_view text) const;
};

}  // namespace nibble::gate
