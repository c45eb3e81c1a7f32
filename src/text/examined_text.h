// What the detectors look at, so that their patterns need one spelling only.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace nibble::text {

/// The text in NFC with the typographic apostrophe ’ as '. `invalid_argument` where it is not UTF-8.
Result<std::string> examined_text(std::string_view text);

/// The same of the text without its Markdown.
Result<std::string> examined_words(std::string_view text);

}  // namespace nibble::text
