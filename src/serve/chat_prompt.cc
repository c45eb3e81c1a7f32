#include "serve/chat_prompt.h"

#include <algorithm>

#include "base/log.h"
#include "text/chat_encode.h"
#include "text/chat_normalise.h"

namespace nibble::serve {
namespace {

constexpr const char* kThinking = "enable_thinking";

ApiError template_error(const Status& status) {
  ApiError error = invalid_value("messages", status.message());
  error.code = "template_error";
  return error;
}

// The request's own kwargs, then reasoning_effort, then the server's --thinking, then what the template does by itself.
std::optional<ApiError> template_kwargs(const Service& service, const ChatRequest& request, Json& out) {
  const auto& readable = service.chat_template->free_variables();
  out = Json::object();
  for (const auto& item : request.template_kwargs.items()) {
    if (item.value().is_null() || std::ranges::find(readable, item.key()) == readable.end()) continue;
    const bool bad = item.key() == kThinking ? !item.value().is_boolean() : item.value().is_structured();
    if (bad) {
      return invalid_value("chat_template_kwargs." + item.key(),
                           item.key() == kThinking ? "expected true or false" : "expected a scalar");
    }
    out[item.key()] = item.value();
  }
  std::optional<bool> thinking = request.thinking;
  const Thinking by_default = thinking_of(service.options);
  if (!thinking && by_default != Thinking::automatic) thinking = by_default == Thinking::on;
  if (thinking && !out.contains(kThinking)) out[kThinking] = *thinking;
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> make_chat_prompt(const Service& service, const ChatRequest& request, ChatPrompt& out) {
  text::RenderOptions render;
  render.add_generation_prompt = request.add_generation_prompt;
  if (auto error = template_kwargs(service, request, render.kwargs)) return error;
  const ServeOptions& options = service.options;
  const text::ChatTemplate& chat_template = *service.chat_template;
  Json messages = request.messages;
  if (!options.strict_template) {
    auto normalised = text::normalise_messages(messages, chat_template, {.no_user_text = options.no_user_text});
    if (!normalised.ok()) return template_error(normalised.status());
    messages = std::move(*normalised);
  }
  Json tools = request.tools.empty() ? Json() : request.tools;
  if (!options.tools_verbatim && !tools.is_null()) tools = text::normalise_tools(tools);
  const auto rendered = chat_template.render(messages, tools, render);
  if (!rendered.ok()) return template_error(rendered.status());
  const Status encoded = text::encode_rendered(*service.tokenizer, *rendered, options.allow_control_text, out.ids);
  if (!encoded.ok()) return template_error(encoded);
  out.text = rendered->text;
  out.reasoning_open = text::reasoning_open(out.text);
  out.messages = std::move(messages);
  out.tools = std::move(tools);
  if (render.kwargs.contains(kThinking)) out.thinking = render.kwargs[kThinking].get<bool>();
  return std::nullopt;
}

void watch_prompt(const Service& service, const ChatPrompt& prompt) {
  for (const std::string& difference :
       service.prompt_watch->differences(prompt.messages, prompt.tools, prompt.thinking)) {
    spdlog::warn("serve: {}", difference);
  }
}

std::optional<ApiError> check_fits(const Service& service, size_t prompt_tokens, const char* param) {
  const int64_t context = service.engine->info().context, n = static_cast<int64_t>(prompt_tokens);
  if (n == 0) return invalid_value(param, "expected at least one token of prompt, got none");
  if (n >= context) return context_overflow(n, context);
  return std::nullopt;
}

ReplyOptions reply_options(const Service& service, const ChatRequest& request, bool reasoning_open) {
  ReplyOptions options;
  options.parser.dialect = service.options.dialect;
  options.parser.tools = request.tools;
  options.parser.reasoning_open = reasoning_open;
  options.parser.suppress_calls = !request.calls_allowed;
  options.stop = request.generation.stop;
  options.include_stop = request.generation.include_stop_str_in_output;
  options.one_call = !request.parallel_tool_calls;
  options.include_reasoning = request.include_reasoning;
  return options;
}

engine::Request engine_request(const Service& service, const GenerationOptions& options, std::vector<int32_t> prompt) {
  const engine::Info& info = service.engine->info();
  engine::Request job;
  job.sampling = sampling_of(options, info.default_sampling);
  job.max_tokens =
      token_budget(options, service.options.default_max_tokens, static_cast<int64_t>(prompt.size()), info.context);
  job.min_tokens = options.min_tokens;
  job.ignore_eos = options.ignore_eos;
  job.stop_token_ids = options.stop_token_ids;
  job.prompt = std::move(prompt);
  return job;
}

void mask_calls(const Service& service, const ChatRequest& request, engine::Request& job) {
  if (request.calls_allowed || request.tools.empty()) return;
  // The tools stay in the prompt, so that a conversation that switches them off keeps its cached prefix.
  if (const auto tag = service.tokenizer->added_token("<tool_call>")) job.masked_token_ids.push_back(*tag);
}

}  // namespace nibble::serve
