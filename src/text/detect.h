// The manners detectors: does a spoken reply think aloud, write Markdown, leak the tags of a call, or ask before
// acting?
//
// A detector is a list of named PCRE2 patterns (UTF, Unicode properties). They are the project's own and read as data
// in detect.cc. Before matching, text is brought to NFC and ’ becomes '. think.open, think.any and confirm see the text
// without its Markdown, so that "**Shall I** save it?" is caught.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace nibble::text {

struct Detection {
  std::string detector;  // "md.bold", "think.open", …
  size_t begin, end;     // bytes of the text examined: NFC, and without Markdown for the detectors named above
  std::string snippet;   // the bytes between them
};

enum class DetectorFamily : uint8_t {
  think,    // think.tag, think.open, think.any
  md,       // md.bold … md.latex
  tag,      // call tags, template tokens, a call as bare JSON
  confirm,  // asks for permission to act
};

/// All hits of a family, by pattern, then by place. Fails with invalid_argument where `text` is not UTF-8, and with
/// unavailable where a pattern hit its match limit: that is an error, never a pass. Safe from any thread.
Result<std::vector<Detection>> detect(DetectorFamily family, std::string_view text);

inline Result<std::vector<Detection>> detect_think(std::string_view text) {
  return detect(DetectorFamily::think, text);
}
inline Result<std::vector<Detection>> detect_markdown(std::string_view text) {
  return detect(DetectorFamily::md, text);
}
inline Result<std::vector<Detection>> detect_tag(std::string_view text) {
  return detect(DetectorFamily::tag, text);
}
inline Result<std::vector<Detection>> detect_confirm(std::string_view text) {
  return detect(DetectorFamily::confirm, text);
}

}  // namespace nibble::text
