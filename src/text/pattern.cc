#include "text/pattern.h"

#include <array>

#include "base/check.h"
#include "text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble::text {
namespace {

constexpr size_t kMaxPattern = 1 << 16;

// PCRE2 counts from each place in the text anew, so this bounds the time per byte. A sentence as long as the limit
// would reach it; no reply has one.
constexpr uint32_t kMatchLimit = 50'000;
constexpr uint32_t kMaxHeapKib = 16384;

template <auto free_function>
struct Free {
  template <class T>
  void operator()(T* object) const {
    free_function(object);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>>;

std::string pcre2_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Where the next character begins; `at` is the start of one.
size_t next_character(std::string_view text, size_t at) {
  return at < text.size() ? at + read_utf8(text.substr(at)).size : at + 1;
}

}  // namespace

Result<Pattern> Pattern::compile(std::string_view pattern, std::string_view where) {
  if (pattern.size() > kMaxPattern) {
    return corrupt("{}: expected a pattern of at most {} bytes, got {}", where, kMaxPattern, pattern.size());
  }
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) return out_of_memory("{}: expected memory for a pattern, got none", where);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* raw = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, context.get());
  if (raw == nullptr) {
    return corrupt("{}: expected a regular expression, got: {} at byte {}", where, pcre2_text(error), at);
  }
  std::shared_ptr<const void> code(raw, [](pcre2_code* c) { pcre2_code_free(c); });
  // Where the machine forbids executable memory this fails, and PCRE2 interprets the pattern.
  (void)pcre2_jit_compile(raw, PCRE2_JIT_COMPLETE);
  return Pattern(std::move(code), where);
}

Status Pattern::find_from(std::string_view text, bool all, std::vector<Match>& matches) const {
  if (!valid_utf8(text)) return invalid_argument("{}: expected text in UTF-8, got other bytes", where_);
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const MatchContext context(pcre2_match_context_create(nullptr));
  const JitStack stack(pcre2_jit_stack_create(32 << 10, 1 << 20, nullptr));
  const MatchData data(pcre2_match_data_create_from_pattern(code, nullptr));
  if (!context || !stack || !data) return out_of_memory("{}: expected memory to match, got none", where_);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kMaxHeapKib);
  pcre2_jit_stack_assign(context.get(), nullptr, stack.get());

  const auto find = [&](size_t at, uint32_t options) {
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK | options,
                       data.get(), context.get());
  };
  for (size_t at = 0; at <= text.size();) {
    int found = find(at, 0);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = find(at, PCRE2_NO_JIT);  // its frames are on the heap
    if (found == PCRE2_ERROR_NOMATCH) return {};
    if (found < 0) {
      return unavailable("{}: expected a verdict on {} bytes, got: {}", where_, text.size(), pcre2_text(found));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    Match match(pcre2_get_ovector_count(data.get()));
    for (size_t i = 0; i < static_cast<size_t>(found); ++i) match[i] = {ends[2 * i], ends[2 * i + 1]};
    // \K in a lookahead can put the beginning behind the end.
    if (match[0].begin > match[0].end) match[0].begin = match[0].end;
    at = match[0].end > match[0].begin ? match[0].end : next_character(text, match[0].end);
    matches.push_back(std::move(match));
    if (!all) return {};
  }
  return {};
}

Result<std::optional<Match>> Pattern::first_match(std::string_view text) const {
  std::vector<Match> found;
  NIBBLE_RETURN_IF_ERROR(find_from(text, false, found));
  return found.empty() ? std::optional<Match>() : std::move(found.front());
}

Result<bool> Pattern::matches(std::string_view text) const {
  std::vector<Match> found;
  NIBBLE_RETURN_IF_ERROR(find_from(text, false, found));
  return !found.empty();
}

Result<std::vector<Match>> Pattern::all_matches(std::string_view text) const {
  std::vector<Match> found;
  NIBBLE_RETURN_IF_ERROR(find_from(text, true, found));
  return found;
}

}  // namespace nibble::text
