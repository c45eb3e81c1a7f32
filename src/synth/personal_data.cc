#include "synth/personal_data.h"

#include <algorithm>
#include <vector>

#include "text/pattern.h"

namespace nibble::synth {
namespace {

struct Form {
  const char* kind;
  const char* pattern;
};

// Digits that a longer word or number does not go on with.
constexpr Form kForms[] = {
    {"mail address", R"([\w.+-]+@[\w-]+(?:\.[\w-]+)+)"},
    {"card number", R"((?<![\w.,])\d(?:[ -]?\d){12,18}(?![\w]))"},
    {"identity number", R"((?<![\w.,-])\d{4} \d{4} \d{4}(?![\w]))"},
    {"phone number",
     R"((?<!\w)\+\d{1,3}[ -]?\(?\d(?:[ ()-]?\d){7,12}(?!\w)|(?<![\w.,-])0\d{2,4}[ -]?\d{3,4}[ -]?\d{3,4}(?!\w))"
     R"(|(?<![\w.,-])[6-9]\d{4}[ -]?\d{5}(?!\w)|(?<![\w.,-])\(?[2-9]\d{2}\)?[ .-]\d{3}[ .-]\d{4}(?!\w))"}};

// ISO/IEC 7812-1, annex B: every second digit from the right but one is doubled, its digits added.
bool luhn(std::string_view text) {
  int sum = 0;
  bool twice = false;
  for (auto c = text.rbegin(); c != text.rend(); ++c) {
    if (*c < '0' || *c > '9') continue;
    const int digit = (*c - '0') * (twice ? 2 : 1);
    sum += digit > 9 ? digit - 9 : digit;
    twice = !twice;
  }
  return sum % 10 == 0;
}

const std::vector<text::Pattern>& patterns() {
  static const std::vector<text::Pattern> compiled = [] {
    std::vector<text::Pattern> list;
    for (const Form& form : kForms) list.push_back(text::Pattern::compile(form.pattern, form.kind).value());
    return list;
  }();
  return compiled;
}

}  // namespace

Result<std::optional<PersonalData>> find_personal_data(std::string_view text) {
  for (size_t i = 0; i < std::size(kForms); ++i) {
    NIBBLE_TRY(matches, patterns()[i].all_matches(text));
    for (const text::Match& match : matches) {
      const std::string_view found = text.substr(match[0].begin, match[0].end - match[0].begin);
      if (std::string_view(kForms[i].kind) == "card number" && !luhn(found)) continue;
      return std::optional(PersonalData{kForms[i].kind, std::string(found)});
    }
  }
  return std::optional<PersonalData>();
}

}  // namespace nibble::synth
