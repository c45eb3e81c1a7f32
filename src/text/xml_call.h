// One XML call, read from behind its "<function=" while it is written:
//
//   call   := NAME end ( blanks "<parameter=" KEY end VALUE )* blanks "</function>"
//   end    := ">" | "\n" | before "<"
//   VALUE  := text up to the first of </parameter> <parameter= </function> </tool_call> or the end of the stream
//
// NAME and KEY lose blanks and quotes around them. VALUE loses one line feed at its start (the one that ended KEY
// counts) and one at its end. The arguments are written as {"k": v, "k2": v2} in the order of the model; of a repeated
// key the first wins. A value whose only type is string is passed on piece by piece, any other is converted when it has
// ended (schema_types.h). Text between parameters and repeated </parameter> are ignored. A call ends at </function>,
// </tool_call>, <function= or <tool_call>.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "text/parse_event.h"
#include "text/schema_types.h"
#include "text/tag_scanner.h"

namespace nibble::text {

class XmlCall {
 public:
  /// `types` must outlive the call.
  explicit XmlCall(const ToolTypes& types) : types_(&types) {}

  enum class Step : uint8_t {
    open,
    ended,     // by the tag end_tag(), which the byte completed; all events are written
    rejected,  // the name has ended and is empty: no call, nothing was written
  };
  Step push(char c, EventWriter& writer);
  /// Reads what it can of `text` at once, if anything, and returns its length; push() takes the byte behind it.
  size_t push_run(std::string_view text, EventWriter& writer);
  Tag end_tag() const { return tags_.tag(); }

  /// The stream ended. True: the call was closed as healed. False: its name had not ended, and name() is text.
  /// `cut`: it ended because of a limit, so the start of a tag at its end is not part of a value.
  bool finish(bool cut, EventWriter& writer);

  /// The bytes of a name that has not ended.
  std::string_view name() const { return name_; }

 private:
  enum class State : uint8_t { name, between, key, value };
  enum class Value : uint8_t { streamed, buffered, ignored };

  Step in_call(char c, EventWriter& writer);
  void begin_value(bool line_feed_seen, EventWriter& writer);
  void value_text(std::string_view text, EventWriter& writer);
  void write_value(std::string_view text, EventWriter& writer);
  void end_value(EventWriter& writer);
  void close(bool healed, EventWriter& writer);
  bool first_parameter() const { return keys_.size() == 1; }

  const ToolTypes* types_;
  const ParameterTypes* parameters_ = nullptr;  // of this function, if the request has it
  TagScanner tags_;
  State state_ = State::name;
  std::string name_, key_;
  std::set<std::string, std::less<>> keys_;  // seen so far

  Value value_ = Value::ignored;  // how the value under way is treated
  TypeSet value_types_;
  std::string value_text_;       // of a buffered one
  bool at_start_ = false;        // nothing of the value has come, so a line feed would be dropped
  bool line_feed_held_ = false;  // the last byte was one: dropped if the value ends here
};

/// Blanks and one pair of quotes around a name removed.
std::string_view bare_name(std::string_view text);

}  // namespace nibble::text
