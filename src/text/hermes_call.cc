#include "text/hermes_call.h"

#include <optional>

#include "text/blanks.h"

namespace nibble::text {
namespace {

// The object that a string holds; nothing if it holds anything else. An empty string means no arguments.
std::optional<std::string> object_in(std::string_view text) {
  text = trimmed(text);
  if (text.empty()) return "{}";
  if (text.front() != '{') return std::nullopt;
  JsonScanner scanner;
  for (const char c : text) {
    if (!scanner.push(c).ok) return std::nullopt;
  }
  if (!scanner.complete()) return std::nullopt;
  return std::string(text);
}

}  // namespace

HermesCall::Step HermesCall::push(char c, EventWriter& writer) {
  const JsonScanner::Step step = scanner_.push(c);
  if (step.ok) return released_ ? push_released(c, step, writer) : push_unreleased(c, step, writer);
  if (!released_) return Step::rejected;
  heal(writer);
  return Step::broken;
}

// The inside of a string that is being passed on.
size_t HermesCall::push_run(std::string_view text, EventWriter& writer) {
  if (!released_ || !arguments_open_) return 0;
  const size_t run = scanner_.plain_run(text);
  // Nothing is held: in a string value only an escape is, and there the run is empty.
  writer.arguments(text.substr(0, run));
  return run;
}

HermesCall::Step HermesCall::push_unreleased(char c, JsonScanner::Step step, EventWriter& writer) {
  held_ += c;
  const auto reject = [&] {
    held_.pop_back();
    return Step::rejected;
  };
  if (!note(step.mark, c)) return reject();
  if (arguments_open_) {
    if (step.mark == JsonScanner::Mark::value_begin && held_.size() - 1 > arguments_begin_) value_begun_ = true;
    if (scanner_.depth() == 1) arguments_open_ = false;
    if (step.safe) arguments_safe_end_ = held_.size();
    if (step.safe && !name_.empty() && (value_begun_ || !arguments_open_)) {
      writer.begin_call(name_);
      writer.arguments(std::string_view(held_).substr(arguments_begin_));
      held_.clear();
      released_ = true;
    }
  }
  if (scanner_.depth() > 0) {
    if (role_ == Role::ignored && !is_blank(c)) ++ignored_;
    return Step::open;
  }
  if (name_.empty()) return reject();
  writer.begin_call(name_);
  writer.arguments(arguments());
  end(/*healed=*/false, writer);
  return Step::complete;
}

HermesCall::Step HermesCall::push_released(char c, JsonScanner::Step step, EventWriter& writer) {
  if (arguments_open_) {
    held_ += c;
    if (scanner_.depth() == 1) arguments_open_ = false;
    if (step.safe) {
      writer.arguments(held_);
      held_.clear();
    }
  } else if (scanner_.depth() > 0 && !is_blank(c)) {
    ++ignored_;
  }
  if (scanner_.depth() > 0) return Step::open;
  end(/*healed=*/false, writer);
  return Step::complete;
}

// What the byte means for the members of the call itself, which are those at depth 1. False: the object is no call.
bool HermesCall::note(JsonScanner::Mark mark, char c) {
  const bool opens = mark == JsonScanner::Mark::value_begin && (c == '{' || c == '[');
  if (scanner_.depth() != (opens ? 2u : 1u)) return true;
  switch (mark) {
    case JsonScanner::Mark::key_begin:
      token_begin_ = held_.size() - 1;
      role_ = Role::none;
      return true;
    case JsonScanner::Mark::key_end:
      return end_key();
    case JsonScanner::Mark::value_begin:
      return begin_value(c);
    case JsonScanner::Mark::string_end:
      return end_string();
    default:
      return true;
  }
}

bool HermesCall::end_key() {
  const auto key = decode_json_string(std::string_view(held_).substr(token_begin_));
  if (key == "name" && name_.empty()) {
    role_ = Role::name;
  } else if ((key == "arguments" || key == "parameters") && form_ == Form::absent) {
    role_ = Role::arguments;
  } else {
    role_ = Role::ignored;
    ignored_ += held_.size() - token_begin_ - 1;  // the byte under way is counted by its reader
  }
  return key.has_value();
}

bool HermesCall::begin_value(char c) {
  token_begin_ = held_.size() - 1;
  if (role_ == Role::name) return c == '"';
  if (role_ != Role::arguments) return true;
  switch (c) {
    case '{':
      form_ = Form::object;
      arguments_open_ = true;
      arguments_begin_ = token_begin_;
      return true;
    case '"':
      form_ = Form::string;
      return true;
    case 'n':
      form_ = Form::null;
      return true;
    default:
      return false;
  }
}

bool HermesCall::end_string() {
  if (role_ == Role::ignored || role_ == Role::none) return true;
  const auto text = decode_json_string(std::string_view(held_).substr(token_begin_));
  if (!text) return false;
  if (role_ == Role::name) {
    name_ = *text;
    return !name_.empty();
  }
  const auto object = object_in(*text);
  if (object) arguments_text_ = *object;
  return object.has_value();
}

// All of the arguments while nothing is released; what is open in them is closed.
std::string HermesCall::arguments() const {
  if (form_ != Form::object) return arguments_text_;
  std::string text = held_.substr(arguments_begin_, arguments_safe_end_ - arguments_begin_);
  if (arguments_open_) text += scanner_.closers(/*outer=*/1);
  return text;
}

void HermesCall::end(bool healed, EventWriter& writer) {
  writer.discard(ignored_);
  writer.end_call(healed);
}

void HermesCall::heal(EventWriter& writer) {
  if (arguments_open_) {
    writer.discard(held_.size());
    writer.arguments(scanner_.closers(/*outer=*/1));
  }
  end(/*healed=*/true, writer);
}

bool HermesCall::finish(EventWriter& writer) {
  if (released_) {
    heal(writer);
    return true;
  }
  if (name_.empty()) return false;
  // What the call loses: arguments behind their last safe point, or a key or string that has not ended.
  if (arguments_open_) {
    writer.discard(held_.size() - arguments_safe_end_);
  } else if (role_ != Role::ignored && scanner_.in_string()) {
    writer.discard(held_.size() - token_begin_);
  }
  writer.begin_call(name_);
  writer.arguments(arguments());
  end(/*healed=*/true, writer);
  return true;
}

}  // namespace nibble::text
