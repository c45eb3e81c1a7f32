// Unicode normalization form C (UAX #15), over utf8proc's tables.
#pragma once

#include <string>
#include <string_view>

namespace nibble::text {

/// The NFC of valid UTF-8 text. Time O(n log n) whatever the text: a run of a million unsorted accents included.
std::string nfc(std::string_view text);

/// True only if the text is in NFC, decided at the speed of a scan over bytes; false says nothing.
bool surely_nfc(std::string_view text);

}  // namespace nibble::text
