#include "text/stop_matcher.h"

#include <algorithm>

namespace nibble::text {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop) : include_stop_(include_stop) {
  for (std::string& stop : stops) {
    if (stop.empty()) continue;
    Pattern pattern;
    pattern.text = std::move(stop);
    // The table is the pattern matched against itself, one byte late.
    pattern.failure.assign(2, 0);
    for (size_t i = 1; i < pattern.text.size(); ++i) {
      pattern.push(pattern.text[i]);
      pattern.failure.push_back(pattern.matched);
    }
    pattern.matched = 0;
    patterns_.push_back(std::move(pattern));
  }
}

void StopMatcher::Pattern::push(char c) {
  while (matched > 0 && text[matched] != c) matched = failure[matched];
  if (text[matched] == c) ++matched;
}

bool StopMatcher::feed(std::string_view content, std::string& out) {
  if (found_) return true;
  size_t read = 0;
  for (const char c : content) {
    ++read;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      Pattern& pattern = patterns_[i];
      pattern.push(c);
      if (pattern.matched < pattern.text.size()) continue;
      if (!found_ || patterns_[*found_].text.size() < pattern.text.size()) found_ = i;
    }
    if (found_) break;
  }
  held_ += content.substr(0, read);

  size_t keep = 0;
  if (found_) {
    keep = include_stop_ ? 0 : patterns_[*found_].text.size();
  } else {
    for (const Pattern& pattern : patterns_) keep = std::max(keep, pattern.matched);
  }
  out.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  if (found_) held_.clear();
  return found_.has_value();
}

void StopMatcher::finish(std::string& out) {
  out += held_;
  held_.clear();
}

std::optional<std::string_view> StopMatcher::found() const {
  if (!found_) return std::nullopt;
  return patterns_[*found_].text;
}

}  // namespace nibble::text
