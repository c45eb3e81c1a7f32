#include "serve/chat_request.h"

#include "serve/chat_messages.h"
#include "serve/field_reader.h"
#include "text/chat_template.h"

namespace nibble::serve {
namespace {

void read_tool_choice(FieldReader& fields, ChatRequest& request) {
  const Json* choice = fields.find("tool_choice");
  if (!choice || *choice == "auto") return;
  if (*choice == "none") {
    request.calls_allowed = false;
  } else if (*choice == "required") {
    fields.fail(not_supported("tool_choice", "\"required\""));
  } else if (choice->is_object()) {
    fields.fail(not_supported("tool_choice", "a named function"));
  } else {
    fields.fail_expected("tool_choice", "\"auto\" or \"none\"", *choice);
  }
}

void read_response_format(FieldReader& fields) {
  const Json* format = fields.find("response_format");
  if (!format) return;
  if (!format->is_object()) return fields.fail_expected("response_format", "an object", *format);
  FieldReader inner(*format, "response_format");
  std::string type;
  inner.string("type", 64, type);
  if (inner.error()) return fields.fail(*inner.error());
  if (type == "json_object" || type == "json_schema") {
    fields.fail(not_supported("response_format", "\"" + type + "\""));
  } else if (type != "text") {
    fields.fail_expected("response_format.type", "\"text\"", type);
  }
}

void read_logprobs(FieldReader& fields) {
  bool logprobs = false;
  int64_t top_logprobs = 0;
  fields.boolean("logprobs", logprobs);
  fields.integer("top_logprobs", 0, 20, top_logprobs);
  if (logprobs) fields.fail(not_supported("logprobs", "true"));
  if (top_logprobs > 0) fields.fail(not_supported("top_logprobs", "more than 0"));
}

void read_template_fields(FieldReader& fields, ChatRequest& request) {
  bool continue_final_message = false;
  fields.boolean("add_generation_prompt", request.add_generation_prompt);
  fields.boolean("continue_final_message", continue_final_message);
  if (continue_final_message && request.add_generation_prompt) {
    fields.fail(invalid_value("continue_final_message", "expected add_generation_prompt to be false with it"));
  }
  if (continue_final_message) fields.fail(not_supported("continue_final_message", "true"));

  const Json* kwargs = fields.find("chat_template_kwargs");
  if (!kwargs) return;
  if (!kwargs->is_object()) return fields.fail_expected("chat_template_kwargs", "an object", *kwargs);
  for (const auto& item : kwargs->items()) {
    if (text::is_reserved_variable(item.key())) {
      return fields.fail(invalid_value(fields.path("chat_template_kwargs." + item.key()),
                                       "expected a variable that is not reserved for the server"));
    }
  }
  request.template_kwargs = *kwargs;
}

void read_reasoning_effort(FieldReader& fields, ChatRequest& request) {
  const Json* effort = fields.find("reasoning_effort");
  if (!effort) return;
  if (*effort == "none") {
    request.thinking = false;
  } else if (*effort == "minimal" || *effort == "low" || *effort == "medium" || *effort == "high") {
    request.thinking = true;
  } else {
    fields.fail_expected("reasoning_effort", "none, minimal, low, medium or high", *effort);
  }
}

}  // namespace

std::optional<ApiError> read_chat_request(const Json& body, ChatRequest& out) {
  FieldReader fields(body, "");
  const Json* messages = fields.find("messages");
  if (auto error = read_messages(messages ? *messages : Json(), out.messages)) return error;
  out.generation = read_generation_options(fields);
  if (const Json* tools = fields.find("tools")) {
    if (auto error = read_tools(*tools, out.tools)) fields.fail(std::move(*error));
  }
  read_tool_choice(fields, out);
  fields.boolean("parallel_tool_calls", out.parallel_tool_calls);
  read_response_format(fields);
  read_logprobs(fields);
  read_template_fields(fields, out);
  read_reasoning_effort(fields, out);
  fields.boolean("include_reasoning", out.include_reasoning);
  fields.refuse({"functions", "function_call", "audio"});
  fields.ignore({"modalities", "web_search_options"});
  out.unknown_fields = fields.unknown();
  return fields.error();
}

}  // namespace nibble::serve
