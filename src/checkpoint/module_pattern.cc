#include "checkpoint/module_pattern.h"

#include <array>
#include <string>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble::checkpoint {
namespace {

constexpr size_t kMaxPattern = 1 << 16;
constexpr uint32_t kMaxSteps = 1'000'000;  // of backtracking; patterns over names of 60 bytes need some thousands
constexpr uint32_t kMaxHeapKib = 16384;

std::string pcre2_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

using MatchContext = std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)>;
using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;

}  // namespace

Result<ModulePattern> ModulePattern::compile(std::string_view pattern, std::string_view where, Extent extent) {
  if (pattern.size() > kMaxPattern) {
    return corrupt("{}: expected a pattern of at most {} bytes, got {}", where, kMaxPattern, pattern.size());
  }
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* raw =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_ANCHORED | (extent == Extent::whole ? PCRE2_ENDANCHORED : 0), &error, &at, nullptr);
  if (raw == nullptr) {
    return corrupt("{}: expected a regular expression, got: {} at byte {}", where, pcre2_text(error), at);
  }
  return ModulePattern(std::shared_ptr<const void>(raw, [](pcre2_code* code) { pcre2_code_free(code); }));
}

Result<bool> ModulePattern::matches(std::string_view module) const {
  const MatchContext context(pcre2_match_context_create(nullptr), &pcre2_match_context_free);
  const MatchData match(pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  NIBBLE_CHECK(context != nullptr && match != nullptr);
  pcre2_set_match_limit(context.get(), kMaxSteps);
  pcre2_set_heap_limit(context.get(), kMaxHeapKib);
  const int found =
      pcre2_match(static_cast<const pcre2_code*>(code_.get()), reinterpret_cast<PCRE2_SPTR>(module.data()),
                  module.size(), 0, 0, match.get(), context.get());
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    return unsupported("{}: expected a pattern of module names within limits, got: {}", module, pcre2_text(found));
  }
  return true;
}

}  // namespace nibble::checkpoint
