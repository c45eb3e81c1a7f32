// What clients send, brought into the shape that chat templates render. Templates raise on a `developer` role, a late
// system message, a conversation without a user, arguments given as a string; real clients send all four.
#pragma once

#include <string>

#include "io/json.h"
#include "text/chat_template.h"

namespace nibble::text {

struct NormaliseOptions {
  std::string no_user_text = "Hello.";  // the user message of a conversation that has none and needs one
};

/// A copy of `messages` (an array of objects with a string `role`, else `invalid_argument`) in which
///   1. `developer` is `system`;
///   2. leading system messages are one, joined by a blank line;
///   3. a later system message stays where the template renders one there, else it becomes a user message, in place;
///   4. where the template needs a user message and there is none, the last of several leading system messages becomes
///      one, or no_user_text is appended;
///   5. `arguments` of calls are objects: strings are parsed; one that is no JSON object stays a string where the
///      template accepts that, else it becomes {"arguments": string};
///   6. content is a string: null is "", text parts are joined with nothing between (other parts: `unsupported`), and
///      `reasoning` is `reasoning_content`.
/// Messages keep their order, so a cached prefix stays valid.
Result<Json> normalise_messages(const Json& messages, const ChatTemplate& chat_template,
                                const NormaliseOptions& options = {});

/// Tools without what moves a prompt off the text that models were trained on: `strict`, and the `title` annotations
/// that schema generators add (a parameter that is called "title" stays).
Json normalise_tools(const Json& tools);

}  // namespace nibble::text
