#include "text/detect.h"

#include <array>

#include "base/check.h"
#include "text/detector_patterns.h"
#include "text/examined_text.h"
#include "text/pattern.h"

namespace nibble::text {
namespace {

struct Detector {
  std::string_view name;
  Pattern pattern;
};

constexpr std::array<std::string_view, 10> kFamilies = {"think",  "md",      "tag",   "role", "confirm",
                                                        "refuse", "phantom", "emoji", "url",  "vocative"};

std::string_view family_name(DetectorFamily family) {
  return kFamilies.at(static_cast<size_t>(family));
}

bool in_family(std::string_view name, std::string_view family) {
  return name == family || (name.starts_with(family) && name.substr(family.size()).starts_with('.'));
}

// The patterns are constants of this build, so one that does not compile is a bug of ours.
std::vector<Detector> compile(std::string_view family) {
  std::vector<Detector> detectors;
  for (const auto& [name, pattern] : kDetectorPatterns) {
    if (!in_family(name, family)) continue;
    auto compiled = Pattern::compile(pattern, fmt::format("detector {}", name));
    NIBBLE_CHECK(compiled.ok());
    detectors.push_back({name, std::move(compiled).value()});
  }
  NIBBLE_CHECK(!detectors.empty());
  return detectors;
}

const std::vector<Detector>& detectors(DetectorFamily family) {
  static const auto all = [] {
    std::array<std::vector<Detector>, kFamilies.size()> lists;
    for (size_t i = 0; i < lists.size(); ++i) lists[i] = compile(kFamilies[i]);
    return lists;
  }();
  return all.at(static_cast<size_t>(family));
}

bool sees_plain_words(std::string_view name) {
  constexpr std::array<std::string_view, 6> kNames = {"think.open", "think.any", "confirm",
                                                      "refuse",     "phantom",   "vocative"};
  for (const std::string_view known : kNames) {
    if (name == known) return true;
  }
  return false;
}

// Appends all hits of one detector. The only groups that patterns capture hold a name.
Status find_all(const Detector& detector, std::string_view text, std::vector<Detection>& hits) {
  NIBBLE_TRY(matches, detector.pattern.all_matches(text));
  for (const Match& match : matches) {
    Detection hit{std::string(detector.name), match[0].begin, match[0].end, std::string(match[0].of(text))};
    for (size_t i = 1; i < match.size(); ++i) hit.name += match[i].of(text);
    hits.push_back(std::move(hit));
  }
  return {};
}

Result<std::vector<Detection>> detect_some(DetectorFamily family, std::string_view only, std::string_view text) {
  NIBBLE_TRY(visible, examined_text(text));
  NIBBLE_TRY(words, examined_words(text));
  std::vector<Detection> hits;
  for (const Detector& detector : detectors(family)) {
    if (!in_family(detector.name, only)) continue;
    NIBBLE_RETURN_IF_ERROR(find_all(detector, sees_plain_words(detector.name) ? words : visible, hits));
  }
  return hits;
}

}  // namespace

std::optional<DetectorFamily> detector_family(std::string_view name) {
  for (const auto& [known, pattern] : kDetectorPatterns) {
    if (!in_family(known, name)) continue;
    for (size_t i = 0; i < kFamilies.size(); ++i) {
      if (in_family(known, kFamilies[i])) return static_cast<DetectorFamily>(i);
    }
  }
  return std::nullopt;
}

Result<std::vector<Detection>> detect(DetectorFamily family, std::string_view text) {
  return detect_some(family, family_name(family), text);
}

Result<std::vector<Detection>> detect_named(std::string_view name, std::string_view text) {
  const auto family = detector_family(name);
  if (!family) return invalid_argument("detector: expected the name of one, got \"{}\"", name);
  return detect_some(*family, name, text);
}

Result<std::vector<Detection>> detect_phantom(std::string_view text, size_t calls) {
  NIBBLE_TRY(claims, detect(DetectorFamily::phantom, text));
  if (calls > 0) claims.clear();
  return std::move(claims);
}

}  // namespace nibble::text
