// ChatTemplate: the chat template of a checkpoint. Turns messages and tools into the text that the model reads, and
// says of every character where it came from, so that
//   - the tokenizer reads control tokens only where the template or the assistant wrote them (chat_encode.h), and
//   - training finds the characters of each assistant message, whatever a user typed (assistant_spans below).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "io/json.h"
#include "text/jinja/budget.h"
#include "text/jinja/origin.h"
#include "text/jinja/template.h"

namespace nibble::text {

/// A stretch of the rendered text with one origin (jinja/origin.h): message, field, turn, generation.
///   message >= 0   data of messages[message], `field` says which part
///   message == -1  the template's own text (field literal), the tool definitions (tools) or kwargs
///   turn           the message that the template was at when it wrote this, also for its own text
struct Piece : Origin {
  size_t begin = 0, end = 0;  // bytes of Rendered::text

  bool operator==(const Piece&) const = default;
};

struct Rendered {
  std::string text;
  std::vector<Piece> pieces;       // ascending, disjoint, none empty; they cover the text
  std::vector<std::string> roles;  // of the messages; "" where a message has none
};

struct RenderOptions {
  bool add_generation_prompt = true;
  Json kwargs = Json::object();  // chat_template_kwargs such as {"enable_thinking": false}
  RenderLimits limits = {};
};

enum class Dialect {
  none,    // the template does not mention tool calls in either form
  hermes,  // <tool_call>{"name": …, "arguments": …}</tool_call>
  xml,     // <tool_call><function=name><parameter=key>value</parameter></function></tool_call>
};
const char* name(Dialect dialect);

/// What a template can do, found out by rendering small conversations once at load.
struct TemplateTraits {
  bool renders_late_system = false;       // a system message that is not first appears in the text
  bool renders_developer = false;         // role developer does
  bool accepts_string_arguments = false;  // tool_calls[].function.arguments as a string is accepted and appears
  bool needs_user = false;                // a conversation without a user message is an error
  bool reads_tools = false;               // tool definitions appear
  bool has_generation_blocks = false;     // assistant text is marked by {% generation %}
  Dialect dialect = Dialect::none;
};

/// Immutable after parse, cheap to copy, safe from any thread.
class ChatTemplate {
 public:
  /// `special` are the special tokens that templates read by name: {"bos_token": "<s>", …}. Errors name line and cause.
  static Result<ChatTemplate> parse(std::string source, std::string name, Json special = Json::object());
  /// chat_template.jinja of a checkpoint folder, else "chat_template" of tokenizer_config.json: a string, or a list of
  /// {name, template} of which "default" is taken. not_found if the folder has neither.
  static Result<ChatTemplate> load(const Path& dir);

  /// `messages`: an array. `tools`: an array, or null. The template's own exceptions and exceeded limits come back as
  /// invalid_argument "name: line N: cause". Kwargs that name a reserved variable or are not scalar are refused, those
  /// that the template does not read (free_variables) are ignored.
  Result<Rendered> render(const Json& messages, const Json& tools, const RenderOptions& options = {}) const;

  const std::string& source() const { return source_; }
  const std::string& name() const { return template_.name(); }

  /// The scalar variables that the template reads from outside, without the reserved ones: what kwargs may set.
  const std::vector<std::string>& free_variables() const { return free_variables_; }
  const TemplateTraits& traits() const { return traits_; }

 private:
  ChatTemplate(jinja::Template parsed, std::string source, Json special);

  jinja::Variables variables(const Json& messages, const Json& tools, const RenderOptions& options) const;

  jinja::Template template_;
  std::string source_;
  Json special_;
  std::vector<std::string> free_variables_;
  TemplateTraits traits_;
};

/// Variables that the caller of a template sets itself: messages, tools, bos_token, raise_exception, …
bool is_reserved_variable(std::string_view name);

/// Whether the model goes on inside a reasoning block: the text, white space at its end aside, ends with "<think>".
bool reasoning_open(std::string_view rendered_text);

/// Where an assistant message stands in the rendered text.
///   [begin, body)  the header "<|im_start|>assistant\n"
///   [body, end)    what the model has to write: reasoning, content, calls, and "<|im_end|>" up to and including `end`
/// In a template with generation blocks the body is what lies inside them.
struct AssistantSpan {
  int message;
  size_t begin, body, end;

  bool operator==(const AssistantSpan&) const = default;
};

/// In the order of the text; one per assistant message, or per generation block. Only text that the template wrote
/// while it was at that message (turn) opens or closes a span: the same characters inside content do not. A message
/// that the template drops, or whose markers it does not write, has no span.
std::vector<AssistantSpan> assistant_spans(const Rendered& rendered);

}  // namespace nibble::text
