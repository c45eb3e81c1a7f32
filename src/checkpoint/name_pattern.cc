#include "checkpoint/name_pattern.h"

#include <algorithm>
#include <map>

#include "model/names.h"

namespace nibble::checkpoint {
namespace {

constexpr size_t kMaxCompared = 128;  // bytes of a pattern that are looked at for nearest names

std::vector<std::string> components(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t dot = std::min(text.find('.', begin), text.size());
    parts.emplace_back(text.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return parts;
}

std::string without_stars(std::string text) {
  text.erase(std::remove(text.begin(), text.end(), '*'), text.end());
  return text;
}

// Of single characters inserted, removed or replaced (Levenshtein).
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

bool glob(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool matches_name(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return false;
  const std::string text = model::canonical_module(name), whole = model::canonical_module(pattern);
  if (whole.front() == '*') return glob(whole, text);
  const std::string run = whole + ".*";
  for (size_t begin = 0; begin < text.size();) {
    const std::string_view rest = std::string_view(text).substr(begin);
    if (glob(whole, rest) || glob(run, rest)) return true;
    const size_t dot = text.find('.', begin);
    if (dot == std::string::npos) break;
    begin = dot + 1;
  }
  return false;
}

bool spells_module(std::string_view pattern, std::string_view module) {
  if (!matches_name(pattern, module) && !matches_name(pattern, std::string(module) + ".weight")) return false;
  pattern = model::module_name(pattern);
  std::string_view last = pattern.substr(pattern.rfind('.') + 1);  // of npos + 1: the whole
  while (last.starts_with('*')) last.remove_prefix(1);
  while (last.ends_with('*')) last.remove_suffix(1);
  return !last.empty() && last == module.substr(module.rfind('.') + 1);
}

std::vector<std::string> nearest_names(std::string_view pattern, std::span<const std::string> names, size_t count) {
  std::vector<std::string> wanted = components(model::module_name(pattern.substr(0, kMaxCompared)));
  for (std::string& part : wanted) part = without_stars(part);
  std::map<std::string, std::pair<size_t, size_t>> found;  // window -> distance, order of appearance
  for (const std::string& name : names) {
    const std::vector<std::string> parts = components(model::module_name(name));
    for (size_t begin = 0; begin < parts.size() && begin + wanted.size() <= parts.size(); ++begin) {
      size_t distance = 0;
      std::string window;
      for (size_t i = 0; i < wanted.size(); ++i) {
        const std::string& part = parts[begin + i];
        // By length: three of nine letters apart is nearer than three of three.
        if (!wanted[i].empty()) {
          distance +=
              1000 * edit_distance(wanted[i], part) / std::max<size_t>(1, std::max(wanted[i].size(), part.size()));
        }
        window += (i == 0 ? "" : ".") + part;
      }
      found.try_emplace(std::move(window), distance, found.size());
    }
  }
  std::vector<std::pair<std::pair<size_t, size_t>, std::string>> ranked;
  ranked.reserve(found.size());
  for (const auto& [window, rank] : found) ranked.emplace_back(rank, window);
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> nearest;
  for (size_t i = 0; i < std::min(count, ranked.size()); ++i) nearest.push_back(std::move(ranked[i].second));
  return nearest;
}

}  // namespace nibble::checkpoint
