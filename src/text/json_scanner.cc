#include "text/json_scanner.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace nibble::text {
namespace {

constexpr bool is_json_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}
constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
constexpr bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20;
}

constexpr int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

using Step = JsonScanner::Step;
using Mark = JsonScanner::Mark;

constexpr Step kError = {false, false, Mark::none};
constexpr Step kUnsafe = {true, false, Mark::none};
constexpr Step kSafe = {true, true, Mark::none};

}  // namespace

bool JsonNumber::push(char c) {
  const bool digit_here = is_digit(c);
  switch (state_) {
    case State::start:
    case State::minus:
      if (c == '-' && state_ == State::start) {
        state_ = State::minus;
        return true;
      }
      if (!digit_here) return false;
      state_ = c == '0' ? State::zero : State::integer;
      break;
    case State::zero:
    case State::integer:
      if (c == '.') {
        state_ = State::point;
      } else if (c == 'e' || c == 'E') {
        state_ = State::e;
      } else if (!digit_here || state_ == State::zero) {
        return false;
      }
      break;
    case State::point:
      if (!digit_here) return false;
      state_ = State::fraction;
      break;
    case State::fraction:
      if (c == 'e' || c == 'E') {
        state_ = State::e;
      } else if (!digit_here) {
        return false;
      }
      break;
    case State::e:
      if (c == '+' || c == '-') {
        negative_exponent_ = c == '-';
        state_ = State::e_sign;
        return true;
      }
      [[fallthrough]];
    case State::e_sign:
    case State::exponent:
      if (!digit_here) return false;
      state_ = State::exponent;
      break;
  }
  if (digit_here) digit(c);
  return true;
}

void JsonNumber::digit(char c) {
  if (state_ == State::exponent) {
    constexpr int64_t kLargest = 1'000'000;
    const int64_t size = std::min(std::abs(exponent_) * 10 + (c - '0'), kLargest);
    exponent_ = negative_exponent_ ? -size : size;
    return;
  }
  if (state_ == State::fraction) ++places_;
  if (!nonzero_ && c != '0') {
    nonzero_ = true;
    order_ = -places_;
  } else if (nonzero_ && state_ == State::integer) {
    ++order_;
  }
}

Step JsonScanner::push(char c) {
  switch (state_) {
    case State::string:
      return in_string(c);
    case State::number:
      return in_number(c);
    case State::literal:
      if (literal_.front() != c) return kError;
      literal_.remove_prefix(1);
      if (!literal_.empty()) return kUnsafe;
      state_ = State::after_value;
      return kSafe;
    default:
      break;
  }
  if (is_json_blank(c)) return kUnsafe;
  switch (state_) {
    case State::first_item:
      if (c == ']') return close();
      [[fallthrough]];
    case State::value:
      return begin_value(c);
    case State::first_key:
      if (c == '}') return close();
      [[fallthrough]];
    case State::key:
      if (c != '"') return kError;
      state_ = State::string;
      is_key_ = true;
      return {true, false, Mark::key_begin};
    case State::colon:
      if (c != ':') return kError;
      state_ = State::value;
      return kUnsafe;
    default:
      return after_value(c);
  }
}

Step JsonScanner::begin_value(char c) {
  constexpr Step kBeginSafe = {true, true, Mark::value_begin};
  constexpr Step kBeginUnsafe = {true, false, Mark::value_begin};
  switch (c) {
    case '{':
    case '[':
      return open(c) ? kBeginSafe : kError;
    case '"':
      state_ = State::string;
      is_key_ = false;
      return kBeginSafe;
    case 't':
      literal_ = "rue";
      break;
    case 'f':
      literal_ = "alse";
      break;
    case 'n':
      literal_ = "ull";
      break;
    default:
      number_ = JsonNumber();
      if (!number_.push(c)) return kError;
      state_ = State::number;
      return number_.valid() ? kBeginSafe : kBeginUnsafe;
  }
  state_ = State::literal;
  return kBeginUnsafe;
}

Step JsonScanner::in_string(char c) {
  const Step inside = is_key_ ? kUnsafe : kSafe;
  switch (escape_) {
    case Escape::hex: {
      const int value = hex_value(c);
      if (value < 0) return kError;
      unit_ = unit_ * 16 + static_cast<uint32_t>(value);
      if (--hex_left_ > 0) return kUnsafe;
      escape_ = Escape::none;
      if (!unit_done()) return kError;
      return low_due_ ? kUnsafe : inside;
    }
    case Escape::letter:
      escape_ = Escape::none;
      if (c == 'u') {
        escape_ = Escape::hex;
        hex_left_ = 4;
        unit_ = 0;
        return kUnsafe;
      }
      if (low_due_ || std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos) return kError;
      return inside;
    case Escape::none:
      break;
  }
  if (c == '\\') {
    escape_ = Escape::letter;
    return kUnsafe;
  }
  if (low_due_ || is_control(c)) return kError;
  return c == '"' ? end_string() : inside;
}

size_t JsonScanner::plain_run(std::string_view text) const {
  if (state_ != State::string || is_key_ || escape_ != Escape::none || low_due_) return 0;
  const auto special = [](char c) { return c == '"' || c == '\\' || is_control(c); };
  return static_cast<size_t>(std::find_if(text.begin(), text.end(), special) - text.begin());
}

// A complete \uXXXX: low surrogates come right after high ones, and nowhere else.
bool JsonScanner::unit_done() {
  const bool low = unit_ >= 0xDC00 && unit_ <= 0xDFFF;
  if (low != low_due_) return false;
  low_due_ = unit_ >= 0xD800 && unit_ <= 0xDBFF;
  return true;
}

Step JsonScanner::end_string() {
  state_ = is_key_ ? State::colon : State::after_value;
  return is_key_ ? Step{true, false, Mark::key_end} : Step{true, true, Mark::string_end};
}

Step JsonScanner::in_number(char c) {
  if (number_.push(c)) {
    if (!number_.finite()) return kError;
    return number_.valid() ? kSafe : kUnsafe;
  }
  if (!number_.valid()) return kError;
  state_ = State::after_value;
  return is_json_blank(c) ? kUnsafe : after_value(c);
}

Step JsonScanner::after_value(char c) {
  if (open_.empty()) return kError;
  const bool object = open_.back() == '{';
  if (c == ',') {
    state_ = object ? State::key : State::value;
    return kUnsafe;
  }
  return c == (object ? '}' : ']') ? close() : kError;
}

bool JsonScanner::open(char bracket) {
  if (open_.size() == kMaxDepth) return false;
  open_ += bracket;
  state_ = bracket == '{' ? State::first_key : State::first_item;
  return true;
}

Step JsonScanner::close() {
  open_.pop_back();
  state_ = State::after_value;
  return {true, true, Mark::container_end};
}

bool JsonScanner::complete() const {
  return open_.empty() && (state_ == State::after_value || (state_ == State::number && number_.valid()));
}

std::string JsonScanner::closers(size_t outer) const {
  std::string text;
  if (state_ == State::string && !is_key_) text += '"';
  for (size_t i = open_.size(); i > outer; --i) text += open_[i - 1] == '{' ? '}' : ']';
  return text;
}

void append_json_escaped(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (is_control(c)) {
          out += "\\u00";
          out += kHex[static_cast<size_t>(c) >> 4];
          out += kHex[static_cast<size_t>(c) & 15];
        } else {
          out += c;
        }
    }
  }
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  append_json_escaped(out, text);
  out += '"';
  return out;
}

std::optional<std::string> decode_json_string(std::string_view literal) {
  // The names and keys of most calls need no decoding.
  const auto plain = [](char c) {
    return c != '"' && c != '\\' && !is_control(c) && static_cast<unsigned char>(c) < 0x80;
  };
  if (literal.size() >= 2 && literal.front() == '"' && literal.back() == '"') {
    const std::string_view inside = literal.substr(1, literal.size() - 2);
    if (std::all_of(inside.begin(), inside.end(), plain)) return std::string(inside);
  }
  const auto json = nlohmann::json::parse(literal, nullptr, /*allow_exceptions=*/false);
  if (!json.is_string()) return std::nullopt;
  return json.get<std::string>();
}

std::optional<std::string> reprint_json(std::string_view text) {
  JsonScanner scanner;
  std::string out;
  for (const char c : text) {
    const bool inside = scanner.in_string();
    if (!scanner.push(c).ok) return std::nullopt;
    if (!inside && is_json_blank(c)) continue;
    out += c;
    if (!inside && (c == ',' || c == ':')) out += ' ';
  }
  if (!scanner.complete()) return std::nullopt;
  return out;
}

}  // namespace nibble::text
