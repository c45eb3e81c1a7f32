// Replies that run in circles.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/detect.h"

namespace nibble::text {

/// Over the words (words.h) of the examined text, case-folded; the first hit of each, in this order:
///   repetition.cycle      n words said k times in a row: n = 1 and k >= 5, n = 2 and k >= 4, or n = 3..8 and k >= 3
///   repetition.grams      at least 40 words, of whose runs of four fewer than 0.6 are distinct
///   repetition.character  a character other than white space 12 times in a row
/// Pure, linear; invalid_argument where `text` is not UTF-8.
Result<std::vector<Detection>> detect_repetition(std::string_view text);

/// Whether a reply says the same words as the one before although the user said others. Case and punctuation do not
/// count; a reply without words is not stuck.
bool is_stuck(std::string_view reply, std::string_view previous_reply, std::string_view user,
              std::string_view previous_user);

}  // namespace nibble::text
