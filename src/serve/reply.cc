#include "serve/reply.h"

#include "serve/ids.h"

namespace nibble::serve {

using text::ParseEvent;

Reply::Reply(ReplyOptions options)
    : one_call_(options.one_call),
      include_reasoning_(options.include_reasoning),
      parser_(options.parser),
      stop_(std::move(options.stop), options.include_stop) {}

void Reply::feed(std::string_view text, std::vector<Delta>& out) {
  if (complete_) return;
  parser_.feed(text, events_);
  take(out);
}

void Reply::finish(bool cut_by_length, std::vector<Delta>& out) {
  const bool wanted_more = !complete_;
  if (wanted_more) {
    parser_.finish(cut_by_length, events_);
    take(out);
    if (!complete_) {
      std::string rest;
      stop_.finish(rest);
      if (!rest.empty()) out.push_back({Delta::Kind::content, std::move(rest), 0, {}});
    }
  }
  // A stop string that the last text completed ended the reply before the limit could.
  if (cut_by_length && wanted_more && !complete_) {
    finish_reason_ = "length";
  } else {
    finish_reason_ = calls_ > 0 ? "tool_calls" : "stop";
  }
}

void Reply::take(std::vector<Delta>& out) {
  for (ParseEvent& event : events_) {
    if (complete_) break;
    switch (event.kind) {
      case ParseEvent::reasoning:
        if (include_reasoning_) out.push_back({Delta::Kind::reasoning, std::move(event.text), 0, {}});
        break;
      case ParseEvent::content:
        on_content(event.text, out);
        break;
      case ParseEvent::call_begin:
        out.push_back({Delta::Kind::call_begin, std::move(event.text), calls_++, make_id("call_")});
        break;
      case ParseEvent::call_args:
        out.push_back({Delta::Kind::call_args, std::move(event.text), calls_ - 1, {}});
        break;
      case ParseEvent::call_end:
        if (event.healed) healed_.push_back(calls_ - 1);
        complete_ = one_call_;
        break;
    }
  }
  events_.clear();
}

void Reply::on_content(std::string_view text, std::vector<Delta>& out) {
  std::string released;
  complete_ = stop_.feed(text, released);
  if (!released.empty()) out.push_back({Delta::Kind::content, std::move(released), 0, {}});
}

void ReplyMessage::add(const Delta& delta) {
  switch (delta.kind) {
    case Delta::Kind::reasoning:
      reasoning += delta.text;
      break;
    case Delta::Kind::content:
      content += delta.text;
      break;
    case Delta::Kind::call_begin:
      calls.push_back({delta.id, delta.text, {}});
      break;
    case Delta::Kind::call_args:
      calls.back().arguments += delta.text;
      break;
  }
}

}  // namespace nibble::serve
