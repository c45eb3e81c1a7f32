// One Hermes call, {"name": string, "arguments": object | string that holds an object | null}, read while it is
// written. The order of the keys is free, "parameters" means "arguments", the first of several wins, other keys are
// ignored.
//
// Once the name is known, the bytes of an arguments object are passed on up to the last point where the text could be
// cut and closed (json_scanner.h). The first of them go out when the first value in it has begun, or when it has
// closed: a call that breaks before that was no call, and its text is returned instead. Where the arguments stand
// before the name, or in a string, they go out when the whole object has closed.
#pragma once

#include <string>
#include <string_view>

#include "text/json_scanner.h"
#include "text/parse_event.h"

namespace nibble::text {

class HermesCall {
 public:
  enum class Step : uint8_t {
    open,
    complete,  // the byte closed the object; all events of the call are written
    rejected,  // the byte is none of it, and nothing was written: body() is text
    broken,    // the byte is none of it, but the call was under way: it has been closed as healed
  };
  /// The first byte must be '{'. After any step but `open` the call must not be used further, except for body().
  Step push(char c, EventWriter& writer);

  /// Reads what it can of `text` at once, if anything, and returns its length; push() takes the byte behind it.
  size_t push_run(std::string_view text, EventWriter& writer);

  /// The stream ended. True: a call was closed as healed. False: there was no name yet, and body() is text.
  bool finish(EventWriter& writer);

  /// All bytes of a call that has written nothing yet.
  std::string_view body() const { return held_; }

 private:
  enum class Role : uint8_t { none, ignored, name, arguments };
  enum class Form : uint8_t { absent, null, object, string };

  Step push_unreleased(char c, JsonScanner::Step step, EventWriter& writer);
  Step push_released(char c, JsonScanner::Step step, EventWriter& writer);
  bool note(JsonScanner::Mark mark, char c);
  bool end_key();
  bool begin_value(char c);
  bool end_string();
  std::string arguments() const;
  void end(bool healed, EventWriter& writer);
  void heal(EventWriter& writer);

  JsonScanner scanner_;
  std::string held_;  // before the first release all bytes, then those of the arguments since a safe point
  bool released_ = false;
  size_t ignored_ = 0;      // bytes of members that are neither name nor arguments
  size_t token_begin_ = 0;  // offset in held_ of the key or string at depth 1 under way
  Role role_ = Role::none;  // of the member at depth 1 under way, from the end of its key
  std::string name_;        // empty: not known yet

  Form form_ = Form::absent;     // of the arguments
  bool arguments_open_ = false;  // an object is under way
  bool value_begun_ = false;     // the first value in it has begun
  size_t arguments_begin_ = 0;   // offsets in held_ of the object and of its last safe point
  size_t arguments_safe_end_ = 0;
  std::string arguments_text_ = "{}";  // what a string holds, once it is complete
};

}  // namespace nibble::text
