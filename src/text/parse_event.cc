#include "text/parse_event.h"

namespace nibble::text {

void MessageBuilder::add(const ParseEvent& event) {
  switch (event.kind) {
    case ParseEvent::reasoning:
      message_.reasoning += event.text;
      return;
    case ParseEvent::content:
      message_.content += event.text;
      return;
    case ParseEvent::call_begin:
      message_.calls.push_back({.name = event.text, .arguments = {}, .healed = false});
      return;
    case ParseEvent::call_args:
      if (!message_.calls.empty()) message_.calls.back().arguments += event.text;
      return;
    case ParseEvent::call_end:
      if (!message_.calls.empty()) message_.calls.back().healed = event.healed;
      return;
  }
}

void EventWriter::attach(std::vector<ParseEvent>& out) {
  out_ = &out;
  first_ = out.size();
}

void EventWriter::text(ParseEvent::Kind kind, std::string_view text) {
  append(kind, text);
}

void EventWriter::begin_call(std::string_view name) {
  if (suppress_calls_) return discard(name.size());
  out_->push_back({ParseEvent::call_begin, std::string(name)});
}

void EventWriter::arguments(std::string_view fragment) {
  if (suppress_calls_) return discard(fragment.size());
  append(ParseEvent::call_args, fragment);
}

void EventWriter::end_call(bool healed) {
  if (!suppress_calls_) out_->push_back({ParseEvent::call_end, {}, healed});
}

void EventWriter::append(ParseEvent::Kind kind, std::string_view text) {
  if (text.empty()) return;
  if (out_->size() > first_ && out_->back().kind == kind) {
    out_->back().text += text;
  } else {
    out_->push_back({kind, std::string(text)});
  }
}

}  // namespace nibble::text
