// Conversations in the form of training records: content is text, arguments are objects, calls have no ids.
#pragma once

#include <string>

#include "base/result.h"
#include "gate/reply.h"
#include "io/json.h"

namespace nibble::synth {

/// The messages of one that a teacher wrote, brought into that form. Calls may be {"name", "arguments"} or nested under
/// "function", arguments an object or its text; a null or missing content is ""; a result that is no text becomes its
/// JSON; a system message at the start is left out, as the recipe has its own. `corrupt` says what is not a message.
Result<Json> read_messages(const Json& written);

/// What a model said, as a message of a record; arguments that are no JSON object stay text.
Json message_of(const gate::Reply& reply);

/// The messages as the API takes them: calls with ids call_1, call_2, … and their arguments as text, results with the
/// ids of the calls that they answer, in order.
Json api_messages(const Json& messages);

/// Calls `each` with the function of every call: {"name", "arguments"}.
template <class Each>
void for_each_call(const Json& message, const Each& each) {
  const Json* calls = find_value(message, "tool_calls");
  if (calls == nullptr || !calls->is_array()) return;
  for (const Json& call : *calls) each(call["function"]);
}

int64_t count_calls(const Json& messages);

/// Whether a tool found nothing: {"results": []} or another object whose arrays are all empty, at least one of them;
/// [], null or an empty text.
bool is_empty_result(const std::string& content);
/// Whether it failed: an object with "error".
bool is_failed_result(const std::string& content);

}  // namespace nibble::synth
