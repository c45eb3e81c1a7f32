#include "text/detect.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <string>

#include "base/check.h"
#include "text/detector_patterns.h"
#include "text/markdown.h"
#include "text/nfc.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

// The JIT counts from each place in the text anew, so this bounds the time per byte. A sentence as long as the limit
// would reach it; no reply has one.
constexpr uint32_t kMatchLimit = 50'000;

template <auto free_function>
struct Free {
  template <class T>
  void operator()(T* object) const {
    free_function(object);
  }
};
using Pattern = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>>;

struct Detector {
  std::string_view name;
  Pattern pattern;
};

bool in_family(std::string_view name, std::string_view family) {
  return name == family || (name.starts_with(family) && name.substr(family.size()).starts_with('.'));
}

// The patterns are constants of this build, so one that does not compile is a bug of ours.
std::vector<Detector> compile(std::string_view family) {
  std::vector<Detector> detectors;
  for (const auto& [name, pattern] : kDetectorPatterns) {
    if (!in_family(name, family)) continue;
    int error = 0;
    PCRE2_SIZE offset = 0;
    Pattern code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                               &error, &offset, nullptr));
    NIBBLE_CHECK(code != nullptr);
    uint32_t matches_empty = 1;
    pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
    NIBBLE_CHECK(matches_empty == 0);  // find_all would not move on
    // Where the machine forbids JIT, PCRE2 interprets the pattern.
    (void)pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    detectors.push_back({name, std::move(code)});
  }
  return detectors;
}

const std::vector<Detector>& detectors(DetectorFamily family) {
  static const std::vector<Detector> think = compile("think"), md = compile("md"), tag = compile("tag"),
                                     confirm = compile("confirm");
  switch (family) {
    case DetectorFamily::think:
      return think;
    case DetectorFamily::md:
      return md;
    case DetectorFamily::tag:
      return tag;
    case DetectorFamily::confirm:
      break;
  }
  return confirm;
}

// NFC, and the typographic apostrophe as the plain one, in which the patterns are written. `text` is valid UTF-8.
std::string normalized(std::string_view text) {
  const std::string composed = nfc(text);
  std::string_view rest = composed;
  constexpr std::string_view kApostrophe = "\u2019";
  std::string out;
  while (true) {
    const size_t next = rest.find(kApostrophe);
    out += rest.substr(0, next);
    if (next == rest.npos) return out;
    out += '\'';
    rest.remove_prefix(next + kApostrophe.size());
  }
}

bool sees_plain_words(std::string_view name) {
  return name == "think.open" || name == "think.any" || name == "confirm";
}

// Appends all hits of one detector.
Status find_all(const Detector& detector, const std::string& text, std::vector<Detection>& hits) {
  const MatchContext context(pcre2_match_context_create(nullptr));
  const JitStack stack(pcre2_jit_stack_create(32 << 10, 1 << 20, nullptr));
  const MatchData data(pcre2_match_data_create_from_pattern(detector.pattern.get(), nullptr));
  if (!context || !stack || !data) return out_of_memory("detector {}: expected memory to match", detector.name);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_jit_stack_assign(context.get(), nullptr, stack.get());

  for (size_t at = 0; at <= text.size();) {
    const int found = pcre2_match(detector.pattern.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                  PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (found == PCRE2_ERROR_NOMATCH) return {};
    if (found < 0) {
      return unavailable("detector {}: expected a verdict on {} bytes, got PCRE2 error {}", detector.name, text.size(),
                         found);
    }
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
    hits.push_back({std::string(detector.name), span[0], span[1], text.substr(span[0], span[1] - span[0])});
    at = span[1];
  }
  return {};
}

}  // namespace

Result<std::vector<Detection>> detect(DetectorFamily family, std::string_view text) {
  if (!valid_utf8(text)) return invalid_argument("detector: text: expected UTF-8, got other bytes");
  const std::string visible = normalized(text), words = normalized(strip_markdown(text));
  std::vector<Detection> hits;
  for (const Detector& detector : detectors(family)) {
    NIBBLE_RETURN_IF_ERROR(find_all(detector, sees_plain_words(detector.name) ? words : visible, hits));
  }
  return hits;
}

}  // namespace nibble::text
