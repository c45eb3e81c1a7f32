// The manners detectors: does a spoken reply think aloud, write Markdown, leak the tags of a call, ask before acting,
// claim what it did not do?
//
// A detector is a list of named PCRE2 patterns (UTF, Unicode properties). They are the project's own and read as data
// in detect.cc. Texts are examined as examined_text.h says: in NFC, with ’ as '. think.open, think.any, confirm,
// refuse, phantom and vocative see the text without its Markdown, so that "**Shall I** save it?" is caught.
//
// What is no pattern has files of its own: repetition.h, encoding_check.h, novel.h, prompt_leak.h, vocative.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace nibble::text {

struct Detection {
  std::string detector;   // "md.bold", "think.open", …
  size_t begin, end;      // bytes of the text examined: without Markdown for the detectors named above
  std::string snippet;    // the bytes between them
  std::string name = {};  // for vocative: whom it addresses
};

enum class DetectorFamily : uint8_t {
  think,     // think.tag, think.open, think.any
  md,        // md.bold … md.latex
  tag,       // call tags, template tokens, a call as bare JSON
  role,      // a line that speaks for another: "User: …"
  confirm,   // asks for permission to act
  refuse,    // says that nothing is known
  phantom,   // claims an action; a lie in a turn without a call
  emoji,     // pictographs
  url,       // web addresses
  vocative,  // addresses somebody by a name
};

/// The family of a detector or family by name: of "md.bold" as of "md" it is md; nothing for what is neither.
std::optional<DetectorFamily> detector_family(std::string_view name);

/// All hits of a family, by pattern, then by place. Fails with invalid_argument where `text` is not UTF-8, and with
/// unavailable where a pattern hit its match limit: that is an error, never a pass. Safe from any thread.
Result<std::vector<Detection>> detect(DetectorFamily family, std::string_view text);

/// The same for the name of a detector or family, as recipes hold it: "md.bold" gives these hits of md alone.
/// invalid_argument for a name that is neither.
Result<std::vector<Detection>> detect_named(std::string_view name, std::string_view text);

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
inline Result<std::vector<Detection>> detect_refuse(std::string_view text) {
  return detect(DetectorFamily::refuse, text);
}

/// Claims of an action in a turn whose assistant made `calls` calls: a claim is phantom only where that is 0.
Result<std::vector<Detection>> detect_phantom(std::string_view text, size_t calls);

}  // namespace nibble::text
