#include "gate/ifeval_text.h"

#include <algorithm>
#include <array>
#include <functional>

#include "base/check.h"
#include "io/json.h"
#include "text/blanks.h"
#include "text/case_fold.h"
#include "text/pattern.h"

namespace nibble::gate {
namespace {

text::Pattern compiled(std::string_view pattern) {
  auto result = text::Pattern::compile(pattern, "ifeval");
  NIBBLE_CHECK(result.ok());
  return std::move(result).value();
}

// Without the end that English contracts to a word, which is set to that.
std::string_view without_contraction(std::string_view token, std::string_view& contraction) {
  constexpr std::array<std::string_view, 14> kContractions = {"'s",  "'S",  "'m",  "'M",  "'d",  "'D",  "'ll",
                                                              "'LL", "'re", "'RE", "'ve", "'VE", "n't", "N'T"};
  contraction = {};
  for (const std::string_view end : kContractions) {
    if (token.size() <= end.size() || !token.ends_with(end)) continue;
    contraction = end;
    return token.substr(0, token.size() - end.size());
  }
  return token;
}

template <class Each>
void for_each_line_of(std::string_view text, Each each) {
  for (const std::string_view line : split_at(text, "\n")) each(line);
}

// Parts of a line between two marks, without either in them; `each` gets what is inside.
template <class Each>
void for_each_between(std::string_view line, std::string_view mark, Each each) {
  for (size_t at = 0; (at = line.find(mark, at)) != std::string_view::npos;) {
    const size_t begin = at + mark.size();
    const size_t end = line.find('*', begin);
    if (end == std::string_view::npos || line.substr(end, mark.size()) != mark) {
      ++at;
      continue;
    }
    each(line.substr(begin, end - begin));
    at = end + mark.size();
  }
}

}  // namespace

Result<int64_t> count_ifeval_words(std::string_view text) {
  static const text::Pattern word = compiled(R"(\w+)");
  NIBBLE_TRY(matches, word.all_matches(text));
  return static_cast<int64_t>(matches.size());
}

Result<int64_t> count_capital_words(std::string_view text) {
  static const text::Pattern token = compiled(R"((?:(?!--)[^\s,;:@#$%&?!"()\[\]{}<>«»“”‘’„`])+)");
  NIBBLE_TRY(tokens, token.all_matches(text));
  int64_t count = 0;
  for (const text::Match& match : tokens) {
    std::string_view contraction;
    const std::string_view word = without_contraction(match[0].of(text), contraction);
    for (const std::string_view part : {word, contraction}) {
      NIBBLE_TRY(upper, is_all_upper(part));
      count += upper;
    }
  }
  return count;
}

Result<bool> is_all_upper(std::string_view text) {
  static const text::Pattern upper = compiled(R"(\p{Lu})"), other = compiled(R"([\p{Ll}\p{Lt}])");
  NIBBLE_TRY(has_upper, upper.matches(text));
  NIBBLE_TRY(has_other, other.matches(text));
  return has_upper && !has_other;
}

Result<bool> is_all_lower(std::string_view text) {
  static const text::Pattern lower = compiled(R"(\p{Ll})"), other = compiled(R"([\p{Lu}\p{Lt}])");
  NIBBLE_TRY(has_lower, lower.matches(text));
  NIBBLE_TRY(has_other, other.matches(text));
  return has_lower && !has_other;
}

int64_t count_bullets(std::string_view text) {
  int64_t count = 0;
  for_each_line_of(text, [&](std::string_view line) {
    line.remove_prefix(std::min(line.find_first_not_of(text::kBlanks), line.size()));
    const bool star = line.starts_with("*") && line.size() > 1 && line[1] != '*';
    count += star || line.starts_with("-");
  });
  return count;
}

int64_t count_placeholders(std::string_view text) {
  int64_t count = 0;
  for_each_line_of(text, [&](std::string_view line) {
    for (size_t at = 0; (at = line.find('[', at)) != std::string_view::npos;) {
      const size_t end = line.find(']', at);
      if (end == std::string_view::npos) return;
      ++count;
      at = end + 1;
    }
  });
  return count;
}

int64_t count_highlights(std::string_view text) {
  int64_t count = 0;
  for_each_line_of(text, [&](std::string_view line) {
    for (const std::string_view mark : {"*", "**"}) {
      for_each_between(line, mark, [&](std::string_view inside) { count += !text::trimmed(inside).empty(); });
    }
  });
  return count;
}

bool has_title(std::string_view text) {
  bool found = false;
  for_each_line_of(text, [&](std::string_view line) {
    const size_t open = line.find("<<"), close = line.rfind(">>");
    if (open == std::string_view::npos || close == std::string_view::npos || close < open + 3) return;
    std::string_view title = line.substr(open, close + 2 - open);
    title.remove_prefix(std::min(title.find_first_not_of('<'), title.size()));
    title = title.substr(0, title.find_last_not_of('>') + 1);
    found = found || !text::trimmed(title).empty();
  });
  return found;
}

bool is_json_document(std::string_view text) {
  text = text::trimmed(text);
  for (const std::string_view fence : {"```json", "```Json", "```JSON", "```"}) {
    if (text.starts_with(fence)) text.remove_prefix(fence.size());
  }
  if (text.ends_with("```")) text.remove_suffix(3);
  return Json::accept(text::trimmed(text));
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view divider) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find(divider)) != std::string_view::npos;) {
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end + divider.size());
  }
  parts.push_back(text);
  return parts;
}

int64_t count_divided_paragraphs(std::string_view text) {
  const std::vector<std::string_view> parts = split_at(text, "***");
  int64_t count = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool blank = text::trimmed(parts[i]).empty();
    if (blank && i > 0 && i + 1 < parts.size()) return -1;
    count += !blank;
  }
  return count;
}

bool has_two_responses(std::string_view text) {
  const std::vector<std::string_view> parts = split_at(text, "******");
  std::vector<std::string_view> responses;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string_view part = text::trimmed(parts[i]);
    if (part.empty() && i > 0 && i + 1 < parts.size()) return false;
    if (!part.empty()) responses.push_back(part);
  }
  return responses.size() == 2 && responses[0] != responses[1];
}

NthParagraph nth_paragraph(std::string_view text, int64_t n) {
  const std::vector<std::string_view> parts = split_at(text, "\n\n");
  const auto blank = [](std::string_view part) { return text::trimmed(part).empty(); };
  NthParagraph found{.count = std::count_if(parts.begin(), parts.end(), std::not_fn(blank)), .first_word = {}};
  // The n-th of all parts, blank ones among them, is what is looked at.
  if (n < 1 || n > found.count || blank(parts[static_cast<size_t>(n - 1)])) return found;
  std::string_view word = text::trimmed(parts[static_cast<size_t>(n - 1)]);
  word = word.substr(0, word.find_first_of(text::kBlanks));
  for (const char quote : {'\'', '"'}) word.remove_prefix(std::min(word.find_first_not_of(quote), word.size()));
  found.first_word = text::case_fold(word.substr(0, word.find_first_of(".,?!'\"")));
  return found;
}

}  // namespace nibble::gate
