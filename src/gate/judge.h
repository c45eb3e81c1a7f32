// When a turn is right: pure functions over what was expected and what was said.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gate/case.h"
#include "gate/record.h"

namespace nibble::gate {

/// All that a reply of a conversation may draw on, in one text: the system prompt, what was said, results of tools.
std::string context_text(const Json& messages);

/// What a turn needs to be judged by, beside itself.
struct TurnContext {
  std::string said = {};                // context_text of the messages before the reply that ends the turn
  std::vector<std::string> names = {};  // words that may stand where a name is said (Detectors::names)
};

/// The expectations that the turn does not meet, in the order of docs/gates.md; none: it passes. A turn without a
/// message that ends it (broken off, too many rounds of calls) already has a failure and is not judged further. Fails
/// where a detector, a regex or a schema gives no verdict: what cannot be examined has none.
Result<std::vector<Failure>> judge_turn(const Turn& turn, const PlayedTurn& played, const TurnContext& context);

/// The last number of a text: digits with commas, currency signs, a sign and decimals, or number words up to a hundred
/// ("twenty five"). Nothing where it has none.
std::optional<double> last_number(std::string_view text);

}  // namespace nibble::gate
