// What the parser of model output says, and the message that its events add up to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

/// One step of a reply. Concatenated texts of one kind are that part of the reply; a call is call_begin, any number of
/// call_args, call_end, with nothing in between.
struct ParseEvent {
  enum Kind : uint8_t {
    reasoning,   // text: a piece of the thinking
    content,     // text: a piece of what is said
    call_begin,  // text: the name of the function
    call_args,   // text: a fragment of its arguments
    call_end,    // the fragments now make one JSON object
  };
  Kind kind;
  std::string text;
  bool healed = false;  // of call_end: the model broke off, and the parser closed what was open

  bool operator==(const ParseEvent&) const = default;
};

struct ParsedCall {
  std::string name;
  std::string arguments;  // a JSON object as text, once the call has ended
  bool healed = false;

  bool operator==(const ParsedCall&) const = default;
};

struct ParsedMessage {
  std::string content;
  std::string reasoning;
  std::vector<ParsedCall> calls;  // in the order of the reply

  bool operator==(const ParsedMessage&) const = default;
};

/// Folds events into a message.
class MessageBuilder {
 public:
  void add(const ParseEvent& event);
  void add(const std::vector<ParseEvent>& events) {
    for (const ParseEvent& event : events) add(event);
  }
  const ParsedMessage& message() const { return message_; }
  ParsedMessage take() { return std::move(message_); }

 private:
  ParsedMessage message_;
};

/// Where the parts of the parser write: joins neighbours of one kind within a feed, counts what is thrown away, and
/// under tool_choice "none" throws away calls.
class EventWriter {
 public:
  explicit EventWriter(bool suppress_calls) : suppress_calls_(suppress_calls) {}

  /// Events go to the end of `out` from here on; those already there are left alone.
  void attach(std::vector<ParseEvent>& out);

  void text(ParseEvent::Kind kind, std::string_view text);
  void begin_call(std::string_view name);
  void arguments(std::string_view fragment);
  void end_call(bool healed);

  /// Counts `bytes` of the reply that reach neither content nor reasoning nor a call.
  void discard(size_t bytes) { discarded_ += bytes; }
  uint64_t discarded() const { return discarded_; }

 private:
  void append(ParseEvent::Kind kind, std::string_view text);

  bool suppress_calls_;
  uint64_t discarded_ = 0;
  std::vector<ParseEvent>* out_ = nullptr;
  size_t first_ = 0;  // index in *out_ of the first event of this feed
};

}  // namespace nibble::text
