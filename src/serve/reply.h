// Reply: what a chat model generates, on its way to a client. Text goes in as it is generated, deltas come out in the
// order in which a stream sends them; a reply that is sent whole is the sum of the same deltas.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_parser.h"
#include "text/stop_matcher.h"

namespace nibble::serve {

/// One thing that a chunk says.
struct Delta {
  enum class Kind : uint8_t {
    reasoning,   // text: a piece of it
    content,     // text: a piece of it
    call_begin,  // text: the function's name; id
    call_args,   // text: a fragment of its arguments
  };
  Kind kind;
  std::string text;
  int index = 0;   // of the call in this reply: 0, 1, 2, …
  std::string id;  // of call_begin: "call_…"
};

struct ReplyOptions {
  text::ParserOptions parser;
  std::vector<std::string> stop;  // matched on content only
  bool include_stop = false;
  bool one_call = false;  // parallel_tool_calls: false
  bool include_reasoning = true;
};

/// Not thread-safe.
class Reply {
 public:
  explicit Reply(ReplyOptions options);

  void feed(std::string_view text, std::vector<Delta>& out);
  /// No text follows; `cut_by_length`: the token limit ended it.
  void finish(bool cut_by_length, std::vector<Delta>& out);

  /// A stop string was met, or the one call that was allowed has ended: what follows is not wanted.
  bool complete() const { return complete_; }

  /// "length", "tool_calls" or "stop"; valid after finish().
  std::string_view finish_reason() const { return finish_reason_; }
  /// Indices of the calls that the model broke off and the parser closed.
  const std::vector<int>& healed_calls() const { return healed_; }

 private:
  void take(std::vector<Delta>& out);
  void on_content(std::string_view text, std::vector<Delta>& out);

  const bool one_call_, include_reasoning_;
  text::ChatParser parser_;
  text::StopMatcher stop_;
  std::vector<text::ParseEvent> events_;
  int calls_ = 0;
  bool complete_ = false;
  std::vector<int> healed_;
  std::string_view finish_reason_;
};

/// The sum of a reply's deltas.
struct ReplyMessage {
  struct Call {
    std::string id, name, arguments;
  };
  std::string content, reasoning;
  std::vector<Call> calls;

  void add(const Delta& delta);
};

}  // namespace nibble::serve
