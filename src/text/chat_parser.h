// ChatParser turns the text that a model generates into reasoning, content and tool calls while it is generated.
//
// * Total: no input is an error. What is not a call is text, what breaks inside a call is closed and marked healed.
// * A function of the text alone: however it is cut into feeds, the events add up to the same message, and to that of
//   the whole text fed at once.
// * Linear time, no regular expressions; it holds at most what is still undecided, which is less than the reply.
// * `arguments` are one JSON object when the call has ended, and every prefix of their fragments becomes one by closing
//   what is open.
//
// Rules for text. The start of a tag and blanks whose follower is unknown are held back. Blanks beside markup are
// dropped, and text on both sides of markup is joined by one line feed; blanks at the end of the message are kept.
// Reasoning has no blanks at its ends, and its pieces are joined by a line feed.
//
// Rules for thinking. Reasoning ends at </think>, or where a call opens; leading <think> are dropped. In content,
// <think> opens reasoning and </think> is dropped if nothing has been said yet; later they are markup only before a
// line feed or the end (</think> also before '<'), and text otherwise: "The tag <think> is used so." So a model that
// thinks although it was not asked to fills the reasoning, never the content.
//
// Rules for calls: hermes_call.h, xml_call.h. Behind <tool_call> and blanks, '{' begins a Hermes call and <function= an
// XML call; anything else is text. <function= needs no wrapper. A stray </tool_call> is dropped. What a dialect set by
// hand does not speak is content without <tool_call> and </tool_call>.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "text/dialect.h"
#include "text/hermes_call.h"
#include "text/parse_event.h"
#include "text/schema_types.h"
#include "text/tag_scanner.h"
#include "text/text_sink.h"
#include "text/xml_call.h"

namespace nibble::text {

struct ParserOptions {
  ToolDialect dialect = ToolDialect::automatic;
  Json tools;                   // the `tools` of the request; null or empty: there are no calls, their tags are text
  bool reasoning_open = false;  // the prompt ended inside a think block
  bool suppress_calls = false;  // tool_choice "none": calls are recognised, thrown away and counted
};

/// One parser per reply. Not thread-safe.
class ChatParser {
 public:
  explicit ChatParser(const ParserOptions& options);

  /// Appends the events that `text` decides to `out`. Feeds should hold whole UTF-8 characters; then so do the events.
  void feed(std::string_view text, std::vector<ParseEvent>& out);

  /// The reply is complete; nothing may be fed afterwards. `cut_by_length`: a limit ended it, so the start of a tag at
  /// its end is markup that was cut, not text.
  void finish(bool cut_by_length, std::vector<ParseEvent>& out);

  /// Bytes so far that reached no event: text between parameters, repeated parameters, the rest of a broken call.
  uint64_t discarded_bytes() const { return writer_.discarded(); }

 private:
  enum class Mode : uint8_t {
    reasoning,
    content,
    body,  // behind <tool_call>, or behind a Hermes call
    hermes,
    broken,  // in a Hermes call that broke, up to </tool_call>
    xml,
  };

  size_t push_run(std::string_view text);
  void push(char c);
  void push_text(char c);
  void push_body(char c);
  void push_hermes(char c);
  void push_xml(char c);
  void plain_text(std::string_view run);
  void on_reasoning_tag(Tag tag);
  void on_content_tag(Tag tag);
  void on_call_tag(Tag tag);
  void open_reasoning();
  void settle_think_tag(bool is_markup);
  void reject_call(std::string_view text);

  std::shared_ptr<const ToolTypes> types_;  // shared, so that a call under way survives a move of the parser
  EventWriter writer_;
  TagSet reasoning_tags_, content_tags_;
  bool hermes_accepted_;

  Mode mode_;
  TagScanner tags_;
  TextSink reasoning_{ParseEvent::reasoning, /*after_markup=*/true};
  TextSink content_{ParseEvent::content, /*after_markup=*/false};
  std::optional<Tag> think_tag_;  // in content: one that the next byte makes markup or text
  bool call_complete_ = false;    // in body: a Hermes call came before
  std::optional<HermesCall> hermes_;
  std::optional<XmlCall> xml_;
};

/// A whole reply at once.
ParsedMessage parse_reply(std::string_view text, const ParserOptions& options, bool cut_by_length = false);

}  // namespace nibble::text
