#include "text/number_words.h"

#include <array>
#include <utility>

namespace nibble::text {
namespace {

constexpr std::array<std::pair<std::string_view, int64_t>, 34> kWords = {{
    {"zero", 0},
    {"one", 1},
    {"two", 2},
    {"three", 3},
    {"four", 4},
    {"five", 5},
    {"six", 6},
    {"seven", 7},
    {"eight", 8},
    {"nine", 9},
    {"ten", 10},
    {"eleven", 11},
    {"twelve", 12},
    {"thirteen", 13},
    {"fourteen", 14},
    {"fifteen", 15},
    {"sixteen", 16},
    {"seventeen", 17},
    {"eighteen", 18},
    {"nineteen", 19},
    {"twenty", 20},
    {"thirty", 30},
    {"forty", 40},
    {"fifty", 50},
    {"sixty", 60},
    {"seventy", 70},
    {"eighty", 80},
    {"ninety", 90},
    {"hundred", 100},
    {"thousand", 1'000},
    {"lakh", 100'000},
    {"million", 1'000'000},
    {"crore", 10'000'000},
    {"billion", 1'000'000'000},
}};

}  // namespace

std::optional<int64_t> number_word(std::string_view word) {
  for (const auto& [known, value] : kWords) {
    if (word == known) return value;
  }
  return std::nullopt;
}

}  // namespace nibble::text
