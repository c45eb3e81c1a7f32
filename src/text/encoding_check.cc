#include "text/encoding_check.h"

#include <algorithm>
#include <array>

#include "text/examined_text.h"

namespace nibble::text {
namespace {

// A property of PCRE2 is looked up by its name; what could end the name could ask for another.
bool is_script_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
}

Status append_hits(const Pattern& pattern, const char* detector, std::string_view text, std::vector<Detection>& hits) {
  NIBBLE_TRY(matches, pattern.all_matches(text));
  const size_t before = hits.size();
  for (const Match& match : matches) {
    if (hits.size() > before && hits.back().end == match[0].begin) {
      hits.back().snippet += match[0].of(text);
      hits.back().end = match[0].end;
      continue;
    }
    hits.push_back({detector, match[0].begin, match[0].end, std::string(match[0].of(text))});
  }
  return {};
}

}  // namespace

std::span<const std::string> EncodingCheck::default_scripts() {
  static const std::array<std::string, 3> scripts = {"Latin", "Kannada", "Devanagari"};
  return scripts;
}

Result<EncodingCheck> EncodingCheck::for_scripts(std::span<const std::string> scripts) {
  std::string allowed = R"(\p{scx:Common}\p{scx:Inherited}\p{Cn}\p{Co})";  // the last two are broken already
  for (const std::string& script : scripts) {
    const std::string property = fmt::format("\\p{{scx:{}}}", script);
    if (!is_script_name(script) || !Pattern::compile(property, "scripts").ok()) {
      return invalid_argument("scripts: expected the name of a Unicode script, got \"{}\"", script);
    }
    allowed += property;
  }
  NIBBLE_TRY(broken, Pattern::compile(R"([\x{FFFD}\x00-\x08\x0B-\x1F\p{Co}]|(?!\p{Extended_Pictographic})\p{Cn})",
                                      "detector encoding.broken"));
  NIBBLE_TRY(script, Pattern::compile(fmt::format("[^{}]", allowed), "detector encoding.script"));
  return EncodingCheck(std::move(broken), std::move(script));
}

Result<std::vector<Detection>> EncodingCheck::detect(std::string_view text) const {
  NIBBLE_TRY(visible, examined_text(text));
  std::vector<Detection> hits;
  NIBBLE_RETURN_IF_ERROR(append_hits(broken_, "encoding.broken", visible, hits));
  NIBBLE_RETURN_IF_ERROR(append_hits(script_, "encoding.script", visible, hits));
  return hits;
}

}  // namespace nibble::text
