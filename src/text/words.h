// Words as the detectors count them: runs of letters, marks and digits of any script.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace nibble::text {

/// The words of a text, as parts of it. A zero-width joiner inside a word belongs to it; an apostrophe does not, so
/// "don't" is two. Pure, linear, any bytes (broken ones separate words).
std::vector<std::string_view> words(std::string_view text);

/// Whether a listener would hear anything: the text without its Markdown has a letter or a digit.
bool speakable(std::string_view text);

}  // namespace nibble::text
