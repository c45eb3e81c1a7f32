#include "gate/decimal.h"

#include <algorithm>
#include <cctype>

#include "text/blanks.h"

namespace nibble::gate {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

struct Found {
  std::string number;  // in its one form
  size_t begin, end;   // with its sign
};

std::string one_form(bool negative, std::string_view whole, std::string_view fraction) {
  whole.remove_prefix(std::min(whole.find_first_not_of('0'), whole.size()));
  fraction = fraction.substr(0, fraction.find_last_not_of('0') + 1);
  if (whole.empty() && fraction.empty()) return "0";
  std::string out = negative ? "-" : "";
  out += whole.empty() ? "0" : whole;
  if (!fraction.empty()) out.append(".").append(fraction);
  return out;
}

// Where the sign and currency before the digits begin; whether there is a minus among them.
size_t sign_before(std::string_view text, size_t begin, bool& negative) {
  const auto is_last = [&](char c) { return begin > 0 && text[begin - 1] == c; };
  if (is_last('$')) --begin;
  if (!is_last('-')) return begin;
  const char before = begin > 1 ? text[begin - 2] : ' ';
  negative = std::isalnum(static_cast<unsigned char>(before)) == 0 && before != ')' && before != ']';
  return negative ? begin - 1 : begin;
}

std::optional<Found> last_number(std::string_view text) {
  std::optional<Found> last;
  const auto char_at = [&](size_t at) { return at < text.size() ? text[at] : ' '; };
  const auto digit_at = [&](size_t at) { return is_digit(char_at(at)); };
  for (size_t i = 0; i < text.size();) {
    const bool fraction_only =
        text[i] == '.' && digit_at(i + 1) && (i == 0 || std::isalnum(static_cast<unsigned char>(text[i - 1])) == 0);
    if (!is_digit(text[i]) && !fraction_only) {
      ++i;
      continue;
    }
    std::string whole;
    size_t end = i;
    for (; digit_at(end) || (end > i && char_at(end) == ',' && digit_at(end + 1)); ++end) {
      if (text[end] != ',') whole += text[end];
    }
    std::string fraction;
    if (char_at(end) == '.' && digit_at(end + 1)) {
      for (++end; digit_at(end); ++end) fraction += text[end];
    }
    bool negative = false;
    const size_t begin = sign_before(text, i, negative);
    last = Found{one_form(negative, whole, fraction), begin, end};
    i = end;
  }
  return last;
}

}  // namespace

std::optional<std::string> last_decimal(std::string_view text) {
  const std::optional<Found> found = last_number(text);
  return found ? std::optional(found->number) : std::nullopt;
}

std::optional<std::string> whole_decimal(std::string_view text) {
  text = text::trimmed(text);
  const std::optional<Found> found = last_number(text);
  const bool whole = found && found->begin == 0 && found->end == text.size();
  return whole ? std::optional(found->number) : std::nullopt;
}

}  // namespace nibble::gate
