// Full Unicode case folding, for comparisons that ignore case.
#pragma once

#include <string>
#include <string_view>

namespace nibble::text {

/// The text in NFC with every character case-folded (status C and F of CaseFolding.txt: ß becomes ss); broken bytes
/// become U+FFFD as in sanitize_utf8. Pure, time O(n log n).
std::string case_fold(std::string_view text);

}  // namespace nibble::text
