#include "text/split_pattern.h"

#include <algorithm>
#include <array>
#include <string>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble::text {
namespace {

// Unicode's White_Space, as the inside of a class. It ends with a property, so a hyphen after it makes no range.
constexpr std::string_view kSpaces = R"(\t-\r\x{85}\p{Z})";

constexpr size_t kMaxPattern = 1 << 16;

// Steps of backtracking for one match. The library's default, 10^7, is less than a long run of blanks needs, where the
// Qwen pattern looks for a line end from each of them; so there is an allowance for the length of the text.
uint32_t match_limit(size_t text_size) {
  const uint64_t limit = uint64_t{10'000'000} + 16 * uint64_t{text_size};
  return static_cast<uint32_t>(std::min<uint64_t>(limit, UINT32_MAX));
}

// Rewrites a pattern from Oniguruma's dialect to PCRE2's, or refuses.
class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : in_(pattern), where_(where) {}

  Result<std::string> run() {
    while (at_ < in_.size()) NIBBLE_RETURN_IF_ERROR(in_class_ ? class_member() : item());
    return std::move(out_);
  }

 private:
  std::string_view rest() const { return in_.substr(at_); }
  bool next_is(std::string_view text) const { return rest().starts_with(text); }

  Status take(size_t n) {
    out_ += in_.substr(at_, n);
    at_ += n;
    return {};
  }
  Status emit(std::string_view text, size_t n) {
    out_ += text;
    at_ += n;
    return {};
  }
  Status refuse(std::string_view what) const {
    return unsupported("{}: expected a pattern that Oniguruma and PCRE2 read alike, got {} at byte {}", where_, what,
                       at_);
  }

  Status item() {
    switch (in_[at_]) {
      case '\\':
        return escape();
      case '[':
        return open_class();
      case '(':
        return open_group();
      case '^':
      case '$':
        return refuse("a line anchor");
      case '{':
        return next_is("{,") ? refuse("a repetition without its minimum") : take(1);
      case '}':
        return next_is("}+") ? refuse("a repetition of a repetition") : take(1);
      default:
        return take(1);
    }
  }

  Status open_group() {
    if (next_is("(*")) return refuse("a verb");
    if (!next_is("(?")) return take(1);
    for (const std::string_view known : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (next_is(known)) return take(known.size());
    }
    return refuse("an unusual group");
  }

  Status open_class() {
    const size_t open = next_is("[^") ? 2 : 1;
    if (rest().substr(open).starts_with("]")) return refuse("a class that begins with ]");
    in_class_ = true;
    return take(open);
  }

  Status class_member() {
    if (next_is("[")) return refuse("a class within a class");
    if (next_is("&&")) return refuse("an intersection of classes");
    if (next_is("\\")) return escape();
    in_class_ = !next_is("]");
    return take(1);
  }

  Status escape() {
    if (at_ + 1 == in_.size()) return refuse("a lone backslash");
    const char c = in_[at_ + 1];
    const bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == 's') return emit(in_class_ ? std::string(kSpaces) : fmt::format("[{}]", kSpaces), 2);
    if (c == 'S' && !in_class_) return emit(fmt::format("[^{}]", kSpaces), 2);
    if (c == 'p' || c == 'P' || c == 'x') {
      const size_t close = rest().find('}');
      if (at_ + 2 == in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos) {
        return refuse("an escape without braces");
      }
      return take(close + 1);
    }
    const bool same = !alphanumeric || std::string_view("rntfdD").find(c) != std::string_view::npos;
    return same ? take(2) : refuse(fmt::format("the escape \\{}", c));
  }

  std::string_view in_, where_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

std::string pcre2_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return {text.begin(), std::find(text.begin(), text.end(), PCRE2_UCHAR{0})};
}

using CompileContext = std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)>;
using MatchContext = std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)>;
using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;

}  // namespace

Result<SplitPattern> SplitPattern::compile(std::string_view pattern, std::string_view where) {
  if (pattern.empty() || pattern.size() > kMaxPattern) {
    return corrupt("{}: expected a pattern of 1 to {} bytes, got {}", where, kMaxPattern, pattern.size());
  }
  NIBBLE_TRY(translated, Translator(pattern, where).run());

  const CompileContext context(pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  if (!context) return out_of_memory("{}: expected memory for a pattern, got none", where);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // so that '.' stops only there
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* raw = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
  if (raw == nullptr) return corrupt("{}: expected a regular expression, got: {}", where, pcre2_text(error));
  std::shared_ptr<const void> code(raw, [](pcre2_code* c) { pcre2_code_free(c); });

  uint32_t matches_empty = 0;
  pcre2_pattern_info(raw, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0)
    return unsupported("{}: expected a pattern that takes text, got one that may match none", where);
  // Where the system forbids executable memory this fails, and matching interprets the pattern instead.
  pcre2_jit_compile(raw, PCRE2_JIT_COMPLETE);
  return SplitPattern(std::move(code));
}

Status SplitPattern::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const MatchContext context(pcre2_match_context_create(nullptr), &pcre2_match_context_free);
  const MatchData match(pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  if (!match || !context) return out_of_memory("tokenizer: expected memory for a match, got none");
  pcre2_set_match_limit(context.get(), match_limit(text.size()));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());

  const auto find = [&](size_t at, uint32_t options) {
    return pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | options, match.get(), context.get());
  };

  for (size_t at = 0; at < text.size();) {
    int found = find(at, 0);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = find(at, PCRE2_NO_JIT);  // its frames are on the heap
    if (found == PCRE2_ERROR_NOMATCH) {
      pieces.push_back(text.substr(at));
      return {};
    }
    if (found < 0) return unsupported("tokenizer: expected a Split pattern within limits, got: {}", pcre2_text(found));
    if (ends[0] > at) pieces.push_back(text.substr(at, ends[0] - at));
    pieces.push_back(text.substr(ends[0], ends[1] - ends[0]));
    at = ends[1];
  }
  return {};
}

}  // namespace nibble::text
