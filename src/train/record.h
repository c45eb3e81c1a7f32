// One line of training data: a conversation, with what it says about the loss.
//
//   {"messages": [{"role", "content", "reasoning_content"?, "tool_calls"?, "loss"?: bool, "weight"?: number}, …],
//    "tools"?: […], "loss"?: bool, "weight"?: number, "objective"?: "ce" | "kl" | "both",
//    "id"?, "category"?, "persona"?, "template"?, "id-group"?, "meta"?: {…}}
//
// Read as well: ShareGPT ({"conversations": [{"from", "value"}]}) and {"prompt", "completion"} as text or messages,
// both with an optional "system" text. Unknown keys are ignored.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/json.h"

namespace nibble::train {

/// What the rows of a record are scored by; by_mode leaves it to the run.
enum class Objective : uint8_t { by_mode, ce, kl, both };
const char* name(Objective objective);

struct Record {
  Json messages;              // OpenAI's form; content is text, arguments are objects
  Json tools;                 // an array, or null
  std::vector<float> weight;  // of each message's rows: 0 where it is not in the loss, so on all but assistants
  float record_weight = 1;    // 0 where the record is not in the loss
  Objective objective = Objective::by_mode;
  std::string id, category;
  /// What must not be split between training and validation: the first of "persona", "template" and "id-group", in the
  /// record or in its "meta"; without them the system prompt and the first text of the user.
  std::string group;
};

/// Total: any bytes give a record or `corrupt` "WHERE: FIELD: expected …, got …". Refused, beside broken JSON and wrong
/// types: unknown roles; an assistant that says nothing; a call to a tool that `tools` does not define; a tool message
/// that no call precedes; loss or weight > 0 asked for on a role that is not the assistant's. A content that begins
/// with "<think>…</think>" becomes reasoning_content and content.
Result<Record> parse_record(std::string_view line, std::string_view where);

/// The part of a record by which exact repetitions are known: messages and tools.
std::string content_key(const Record& record);

/// What is said in a conversation by all but the system, calls among it: what near repetitions are known by.
std::string spoken_text(const Json& messages);

}  // namespace nibble::train
