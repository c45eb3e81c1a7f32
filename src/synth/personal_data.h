// What could belong to a real person: addresses and numbers that no made-up conversation needs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace nibble::synth {

struct PersonalData {
  std::string kind;  // "mail address", "phone number", "card number", "identity number"
  std::string text;
};

/// The first that is found:
///   mail address     name@host.word
///   card number      13 to 19 digits, in groups or not, with a right check digit (Luhn)
///   identity number  twelve digits in three groups of four
///   phone number     +CC and 8 to 13 digits; 0 and 9 to 11 digits; ten digits from 6 on, as 5 + 5 or 3 + 3 + 4
/// Years, dates, times, prices and counts are none. `invalid_argument` where `text` is not UTF-8.
Result<std::optional<PersonalData>> find_personal_data(std::string_view text);

}  // namespace nibble::synth
