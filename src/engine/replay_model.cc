// The tokenizer and the chat template that a replay engine needs, from a folder or built in.
#include "checkpoint/synthetic_tokenizer.h"
#include "engine/replay_engine.h"

namespace nibble::engine {
namespace {

// ChatML as Qwen3.5 writes it. History shows reasoning only where a message has some.
constexpr std::string_view kChatTemplate = R"jinja({%- if tools %}
{{- '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
{{- 'Tools:\n<tools>' }}
{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\n</tools>\nCall a tool as <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\n' }}
{%- if message.reasoning_content %}{{- '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{%- endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{%- set f = call.function or call %}
{%- if not loop.first or message.content %}{{- '\n' }}{%- endif %}
{{- '<tool_call>\n{"name": "' + f.name + '", "arguments": ' }}
{{- f.arguments if f.arguments is string else f.arguments | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
)jinja";

Result<text::Tokenizer> open_tokenizer(const Path& dir) {
  if (!dir.empty()) return text::Tokenizer::load(dir);
  return text::Tokenizer::parse(checkpoint::synthetic_tokenizer_json().dump(), R"({"eos_token": "<|im_end|>"})");
}

Result<text::ChatTemplate> open_template(const Path& dir) {
  if (!dir.empty()) return text::ChatTemplate::load(dir);
  return text::ChatTemplate::parse(std::string(kChatTemplate), "replay");
}

}  // namespace

Result<ReplayModel> open_replay(ReplayScript script, const Path& dir, const ReplayOptions& options) {
  NIBBLE_TRY(tokenizer, open_tokenizer(dir));
  NIBBLE_TRY(chat_template, open_template(dir));
  ReplayModel model;
  model.tokenizer = std::make_shared<const text::Tokenizer>(std::move(tokenizer));
  model.chat_template = std::make_shared<const text::ChatTemplate>(std::move(chat_template));
  model.engine = start_replay(std::move(script), model.tokenizer, options);
  return model;
}

}  // namespace nibble::engine
