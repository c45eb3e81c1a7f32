#include "text/case_fold.h"

#include <utf8proc.h>

#include <array>

#include "base/check.h"
#include "text/nfc.h"
#include "text/utf8.h"

namespace nibble::text {

std::string case_fold(std::string_view text) {
  std::array<utf8proc_int32_t, 4> folded;  // the longest full case folding has 3
  std::array<utf8proc_uint8_t, 4> bytes;
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Unit unit = read_utf8(text);
    text.remove_prefix(unit.size);
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(unit.scalar), folded.data(), folded.size(),
                                           UTF8PROC_CASEFOLD, nullptr);
    NIBBLE_CHECK(n >= 0 && n <= static_cast<utf8proc_ssize_t>(folded.size()));
    for (utf8proc_ssize_t i = 0; i < n; ++i) {
      const auto size = utf8proc_encode_char(folded[static_cast<size_t>(i)], bytes.data());
      out.append(bytes.begin(), bytes.begin() + size);
    }
  }
  return nfc(out);
}

}  // namespace nibble::text
