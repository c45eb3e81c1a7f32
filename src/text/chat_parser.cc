#include "text/chat_parser.h"

#include <algorithm>

namespace nibble::text {

ChatParser::ChatParser(const ParserOptions& options)
    : types_(std::make_shared<const ToolTypes>(options.tools)),
      writer_(options.suppress_calls),
      reasoning_tags_{Tag::think_open, Tag::think_close},
      content_tags_(reasoning_tags_),
      mode_(options.reasoning_open ? Mode::reasoning : Mode::content) {
  const bool calls = options.tools.is_array() && !options.tools.empty() && options.dialect != ToolDialect::none;
  hermes_accepted_ = calls && options.dialect != ToolDialect::qwen3_xml;
  if (!calls) return;
  reasoning_tags_.add(Tag::call_open);
  if (options.dialect != ToolDialect::hermes) reasoning_tags_.add(Tag::function_open);
  content_tags_ = reasoning_tags_;
  content_tags_.add(Tag::call_close);
}

void ChatParser::feed(std::string_view text, std::vector<ParseEvent>& out) {
  writer_.attach(out);
  while (!text.empty()) {
    const size_t run = push_run(text);
    if (run == 0) push(text.front());
    text.remove_prefix(std::max<size_t>(run, 1));
  }
}

// Reads bytes that need no decision, as most do, and returns how many.
size_t ChatParser::push_run(std::string_view text) {
  switch (mode_) {
    case Mode::reasoning:
    case Mode::content: {
      if (!tags_.idle() || think_tag_) return 0;
      const size_t run = std::min(text.find('<'), text.size());
      plain_text(text.substr(0, run));
      return run;
    }
    case Mode::hermes:
      return hermes_->push_run(text, writer_);
    case Mode::xml:
      return xml_->push_run(text, writer_);
    default:
      return 0;
  }
}

void ChatParser::push(char c) {
  switch (mode_) {
    case Mode::reasoning:
    case Mode::content:
      return push_text(c);
    case Mode::body:
      return push_body(c);
    case Mode::hermes:
      return push_hermes(c);
    case Mode::xml:
      return push_xml(c);
    case Mode::broken: {
      const TagScanner::Step step = tags_.push(c, {Tag::call_close});
      writer_.discard(tags_.released().size() + (step == TagScanner::Step::text ? 1 : 0));
      if (step == TagScanner::Step::tag) mode_ = Mode::content;
      return;
    }
  }
}

void ChatParser::push_text(char c) {
  if (think_tag_) settle_think_tag(c == '\n' || (c == '<' && think_tag_ == Tag::think_close));
  const TagScanner::Step step = tags_.push(c, mode_ == Mode::reasoning ? reasoning_tags_ : content_tags_);
  if (!tags_.released().empty()) plain_text(tags_.released());
  if (step == TagScanner::Step::text) plain_text({&c, 1});
  if (step != TagScanner::Step::tag) return;
  if (mode_ == Mode::reasoning) {
    on_reasoning_tag(tags_.tag());
  } else {
    on_content_tag(tags_.tag());
  }
}

void ChatParser::plain_text(std::string_view run) {
  (mode_ == Mode::reasoning ? reasoning_ : content_).text(run, writer_);
}

void ChatParser::on_reasoning_tag(Tag tag) {
  if (tag == Tag::think_open) {
    if (!reasoning_.after_markup()) plain_text(text_of(tag));
    return;
  }
  mode_ = Mode::content;
  content_.markup();
  if (tag != Tag::think_close) on_call_tag(tag);
}

void ChatParser::on_content_tag(Tag tag) {
  if (tag != Tag::think_open && tag != Tag::think_close) return on_call_tag(tag);
  think_tag_ = tag;
  if (!content_.any()) settle_think_tag(true);
}

void ChatParser::settle_think_tag(bool is_markup) {
  const Tag tag = *think_tag_;
  think_tag_.reset();
  if (!is_markup) return plain_text(text_of(tag));
  content_.markup();
  if (tag == Tag::think_open) open_reasoning();
}

void ChatParser::open_reasoning() {
  reasoning_.markup();
  mode_ = Mode::reasoning;
}

void ChatParser::on_call_tag(Tag tag) {
  content_.markup();
  switch (tag) {
    case Tag::call_open:
      mode_ = Mode::body;
      call_complete_ = false;
      return;
    case Tag::function_open:
      mode_ = Mode::xml;
      xml_.emplace(*types_);
      return;
    default:
      mode_ = Mode::content;
      return;
  }
}

void ChatParser::push_body(char c) {
  if (is_blank(c)) return;
  if (c == '{' && hermes_accepted_) {
    mode_ = Mode::hermes;
    hermes_.emplace();
    return push_hermes(c);
  }
  // Models close one brace too many, or write calls as a list.
  if (call_complete_ && (c == '}' || c == ']' || c == ',')) return writer_.discard(1);
  mode_ = Mode::content;
  push_text(c);
}

void ChatParser::push_hermes(char c) {
  switch (hermes_->push(c, writer_)) {
    case HermesCall::Step::open:
      return;
    case HermesCall::Step::complete:
      mode_ = Mode::body;
      call_complete_ = true;
      return;
    case HermesCall::Step::broken:
      mode_ = Mode::broken;
      return push(c);
    case HermesCall::Step::rejected:
      reject_call(hermes_->body());
      return push_text(c);
  }
}

void ChatParser::push_xml(char c) {
  switch (xml_->push(c, writer_)) {
    case XmlCall::Step::open:
      return;
    case XmlCall::Step::ended:
      return on_call_tag(xml_->end_tag());
    case XmlCall::Step::rejected:
      reject_call(xml_->name());
      if (c == '<') push_text(c);
      return;
  }
}

// What looked like a call is content. Tags in it were data, so they open nothing, but they are not to be said either.
void ChatParser::reject_call(std::string_view text) {
  mode_ = Mode::content;
  TagScanner scanner;
  while (!text.empty()) {
    const size_t run = scanner.idle() ? std::min(text.find('<'), text.size()) : 0;
    content_.text(text.substr(0, run), writer_);
    text.remove_prefix(run);
    if (text.empty()) break;
    const TagScanner::Step step = scanner.push(text.front(), content_tags_);
    content_.text(scanner.released(), writer_);
    if (step == TagScanner::Step::text) content_.text(text.substr(0, 1), writer_);
    if (step == TagScanner::Step::tag) content_.markup();
    text.remove_prefix(1);
  }
  content_.text(scanner.take(), writer_);
}

void ChatParser::finish(bool cut_by_length, std::vector<ParseEvent>& out) {
  writer_.attach(out);
  switch (mode_) {
    case Mode::reasoning:
    case Mode::content: {
      if (think_tag_) settle_think_tag(true);
      const std::string_view partial = tags_.take();
      if (cut_by_length && partial.size() > 1) {
        writer_.discard(partial.size());
      } else {
        plain_text(partial);
      }
      break;
    }
    case Mode::body:
      break;
    case Mode::hermes:
      if (!hermes_->finish(writer_)) reject_call(hermes_->body());
      break;
    case Mode::broken:
      writer_.discard(tags_.take().size());
      break;
    case Mode::xml:
      if (!xml_->finish(cut_by_length, writer_)) reject_call(xml_->name());
      break;
  }
  content_.finish(writer_);
}

ParsedMessage parse_reply(std::string_view text, const ParserOptions& options, bool cut_by_length) {
  ChatParser parser(options);
  std::vector<ParseEvent> events;
  parser.feed(text, events);
  parser.finish(cut_by_length, events);
  MessageBuilder builder;
  builder.add(events);
  return builder.take();
}

}  // namespace nibble::text
