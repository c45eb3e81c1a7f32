// A push-down automaton for JSON (RFC 8259) that reads one byte at a time, knows where the text so far could be cut,
// and copies nothing. It exists beside io/json.h because arguments are passed on while the model still writes them, and
// because numbers go through digit by digit as they were written.
//
// Stricter than the grammar in three points, so that what it accepts also parses elsewhere: at most kMaxDepth levels,
// surrogate escapes only in pairs, and no number of 1e308 or more in any of its prefixes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble::text {

/// Reads a JSON number: -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?
class JsonNumber {
 public:
  /// False if `c` does not continue the number (it is then unchanged: the number ended, or is broken).
  bool push(char c);
  /// The bytes so far are a number. Its magnitude must be asked for separately.
  bool valid() const {
    return state_ == State::zero || state_ == State::integer || state_ == State::fraction || state_ == State::exponent;
  }
  /// Neither point nor exponent.
  bool integral() const { return state_ == State::zero || state_ == State::integer; }
  /// Below 1e308, so no double overflows.
  bool finite() const { return !nonzero_ || order_ + exponent_ < 308; }

 private:
  enum class State : uint8_t { start, minus, zero, integer, point, fraction, e, e_sign, exponent };
  void digit(char c);

  State state_ = State::start;
  bool nonzero_ = false;  // a digit other than 0 has been read
  bool negative_exponent_ = false;
  int64_t order_ = 0;     // decimal order of the first such digit, exponent left out
  int64_t places_ = 0;    // digits after the point
  int64_t exponent_ = 0;  // saturates at 1e6
};

class JsonScanner {
 public:
  /// The nesting that io/json.h allows: what a client sends back as history must still be readable.
  static constexpr size_t kMaxDepth = 64;

  enum class Mark : uint8_t {
    none,
    key_begin,      // the opening quote of a key
    key_end,        // the closing quote of a key
    value_begin,    // the first byte of a value
    string_end,     // the closing quote of a value
    container_end,  // } or ]
  };
  struct Step {
    bool ok;    // false: with this byte the text is not the start of a JSON value; only closers() may be called then
    bool safe;  // the text may be cut here: with closers() it is a whole value
    Mark mark;
  };
  Step push(char c);

  /// How many bytes at the start of `text` are plain characters of a string value under way. They may be skipped
  /// instead of pushed, and the text may be cut behind them.
  size_t plain_run(std::string_view text) const;

  /// Everything so far is one whole value, blanks around it included.
  bool complete() const;
  size_t depth() const { return open_.size(); }
  bool in_string() const { return state_ == State::string; }

  /// What makes the text whole when it is cut at its last safe point: the quote of an open value and the containers
  /// beyond the first `outer` ones.
  std::string closers(size_t outer = 0) const;

 private:
  enum class State : uint8_t {
    value,       // a value must follow
    first_item,  // after [
    first_key,   // after {
    key,         // after a comma in an object
    colon,
    after_value,  // comma or closer
    string,
    literal,
    number,
  };
  enum class Escape : uint8_t { none, letter, hex };

  Step begin_value(char c);
  Step in_string(char c);
  Step end_string();
  Step in_number(char c);
  Step after_value(char c);
  bool unit_done();
  bool open(char bracket);
  Step close();

  State state_ = State::value;
  std::string open_;     // brackets of the open containers, outermost first
  bool is_key_ = false;  // the string under way is a key
  Escape escape_ = Escape::none;
  int hex_left_ = 0;          // digits missing from \uXXXX
  uint32_t unit_ = 0;         // its value so far
  bool low_due_ = false;      // a high surrogate waits for the low one
  std::string_view literal_;  // what is left of true, false, null
  JsonNumber number_;
};

/// Appends `text` as the inside of a JSON string: quotes, backslashes and control characters escaped, all else as it
/// is.
void append_json_escaped(std::string& out, std::string_view text);
/// The same with quotes around it.
std::string json_string(std::string_view text);

/// The text of a JSON string literal, quotes included in `literal`; nothing if it is none or not UTF-8.
std::optional<std::string> decode_json_string(std::string_view literal);

/// One whole JSON value with all numbers and strings as written and the separators `, ` and `: `; nothing if `text` is
/// not one.
std::optional<std::string> reprint_json(std::string_view text);

}  // namespace nibble::text
