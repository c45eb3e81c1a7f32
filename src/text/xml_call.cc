#include "text/xml_call.h"

#include <algorithm>

#include "text/blanks.h"
#include "text/json_scanner.h"

namespace nibble::text {
namespace {

constexpr TagSet kBetweenTags = {Tag::parameter_open, Tag::parameter_close, Tag::function_open,
                                 Tag::function_close, Tag::call_open,       Tag::call_close};
// An opening tag of a call is data inside a value: models write about calls.
constexpr TagSet kValueTags = {Tag::parameter_open, Tag::parameter_close, Tag::function_close, Tag::call_close};

bool ends_name(char c) {
  return c == '>' || c == '\n' || c == '<';
}

}  // namespace

std::string_view bare_name(std::string_view text) {
  text = trimmed(text);
  if (!text.empty() && (text.front() == '"' || text.front() == '\'')) text.remove_prefix(1);
  if (!text.empty() && (text.back() == '"' || text.back() == '\'')) text.remove_suffix(1);
  return trimmed(text);
}

XmlCall::Step XmlCall::push(char c, EventWriter& writer) {
  switch (state_) {
    case State::name:
      if (!ends_name(c)) {
        name_ += c;
        return Step::open;
      }
      if (bare_name(name_).empty()) return Step::rejected;
      writer.begin_call(bare_name(name_));
      parameters_ = types_->function(bare_name(name_));
      state_ = State::between;
      return c == '<' ? in_call(c, writer) : Step::open;
    case State::key:
      if (!ends_name(c)) {
        key_ += c;
        return Step::open;
      }
      begin_value(c == '\n', writer);
      return c == '<' ? in_call(c, writer) : Step::open;
    default:
      return in_call(c, writer);
  }
}

size_t XmlCall::push_run(std::string_view text, EventWriter& writer) {
  if (state_ != State::value || !tags_.idle()) return 0;
  const size_t run = std::min(text.find('<'), text.size());
  value_text(text.substr(0, run), writer);
  return run;
}

// Between parameters or in a value.
XmlCall::Step XmlCall::in_call(char c, EventWriter& writer) {
  const bool in_value = state_ == State::value;
  const TagScanner::Step step = tags_.push(c, in_value ? kValueTags : kBetweenTags);
  const std::string_view released = tags_.released();
  if (in_value) {
    value_text(released, writer);
    if (step == TagScanner::Step::text) value_text({&c, 1}, writer);
  } else {
    writer.discard(released.size() + (step == TagScanner::Step::text && !is_blank(c) ? 1 : 0));
  }
  if (step != TagScanner::Step::tag) return Step::open;

  if (in_value) end_value(writer);
  switch (tags_.tag()) {
    case Tag::parameter_open:
      state_ = State::key;
      key_.clear();
      return Step::open;
    case Tag::parameter_close:
      state_ = State::between;
      return Step::open;
    default:
      close(/*healed=*/false, writer);
      return Step::ended;
  }
}

void XmlCall::begin_value(bool line_feed_seen, EventWriter& writer) {
  state_ = State::value;
  at_start_ = !line_feed_seen;
  line_feed_held_ = false;
  key_ = bare_name(key_);
  if (!keys_.insert(key_).second) {
    value_ = Value::ignored;
    writer.discard(key_.size());
    return;
  }
  value_types_ = TypeSet::string;
  if (parameters_ != nullptr) {
    const auto types = parameters_->find(key_);
    if (types != parameters_->end() && !types->second.empty()) value_types_ = types->second;
  }
  value_text_.clear();
  value_ = value_types_ == TypeSet::string ? Value::streamed : Value::buffered;
  if (value_ == Value::streamed) {
    writer.arguments(first_parameter() ? "{" : ", ");
    writer.arguments(json_string(key_) + ": \"");
  }
}

// Text of the value before its line feeds at both ends are known to be inside.
void XmlCall::value_text(std::string_view text, EventWriter& writer) {
  if (text.empty()) return;
  if (at_start_ && text.front() == '\n') text.remove_prefix(1);
  at_start_ = false;
  if (text.empty()) return;
  if (line_feed_held_) write_value("\n", writer);
  line_feed_held_ = text.back() == '\n';
  if (line_feed_held_) text.remove_suffix(1);
  write_value(text, writer);
}

void XmlCall::write_value(std::string_view text, EventWriter& writer) {
  switch (value_) {
    case Value::streamed: {
      std::string escaped;
      append_json_escaped(escaped, text);
      writer.arguments(escaped);
      return;
    }
    case Value::buffered:
      value_text_ += text;
      return;
    case Value::ignored:
      writer.discard(text.size());
      return;
  }
}

void XmlCall::end_value(EventWriter& writer) {
  if (value_ == Value::streamed) writer.arguments("\"");
  if (value_ != Value::buffered) return;
  writer.arguments(first_parameter() ? "{" : ", ");
  writer.arguments(json_string(key_) + ": " + convert_value(value_text_, value_types_));
}

void XmlCall::close(bool healed, EventWriter& writer) {
  writer.arguments(keys_.empty() ? "{}" : "}");
  writer.end_call(healed);
}

bool XmlCall::finish(bool cut, EventWriter& writer) {
  if (state_ == State::name) return false;
  const std::string_view partial = tags_.take();
  if (state_ == State::value && !(cut && partial.size() > 1)) {
    value_text(partial, writer);
  } else {
    writer.discard(partial.size());
  }
  if (state_ == State::key) writer.discard(key_.size());
  if (state_ == State::value) end_value(writer);
  close(/*healed=*/true, writer);
  return true;
}

}  // namespace nibble::text
