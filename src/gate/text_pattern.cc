#include "gate/text_pattern.h"

#include "text/case_fold.h"
#include "text/examined_text.h"

namespace nibble::gate {

Result<TextPattern> TextPattern::parse(const Json& json, const std::string& where) {
  TextPattern pattern;
  if (json.is_string()) {
    pattern.text = json.get<std::string>();
    if (pattern.text.empty()) return corrupt("{}: expected a text, got an empty one", where);
    NIBBLE_TRY(examined, text::examined_text(pattern.text));
    pattern.folded = text::case_fold(examined);
    return pattern;
  }
  if (!json.is_object() || json.size() != 1 || !json.contains("~") || !json["~"].is_string()) {
    return corrupt("{}: expected a text or {{\"~\": regex}}, got {}", where, json.dump().substr(0, 60));
  }
  pattern.text = json["~"].get<std::string>();
  NIBBLE_TRY(regex, text::Pattern::compile(pattern.text, where));
  pattern.regex = std::move(regex);
  return pattern;
}

Result<bool> TextPattern::in(std::string_view text) const {
  NIBBLE_TRY(examined, text::examined_text(text));
  if (regex) return regex->matches(examined);
  return text::case_fold(examined).find(folded) != std::string::npos;
}

}  // namespace nibble::gate
