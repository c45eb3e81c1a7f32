#include "serve/reply_json.h"

namespace nibble::serve {
namespace {

Json head_json(const ReplyHead& head, std::string_view object) {
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", head.fingerprint}};
}

Json reason_json(const std::optional<std::string_view>& reason) {
  return reason ? Json(*reason) : Json(nullptr);
}

void add_reasoning(Json& object, const std::string& text, ReasoningField field) {
  if (field != ReasoningField::reasoning) object["reasoning_content"] = text;
  if (field != ReasoningField::reasoning_content) object["reasoning"] = text;
}

}  // namespace

void ReplyUsage::add(const engine::Usage& usage) {
  engine.prompt_tokens += usage.prompt_tokens;
  engine.cached_tokens += usage.cached_tokens;
  engine.completion_tokens += usage.completion_tokens;
  engine.queue_ms += usage.queue_ms;
  engine.prefill_ms += usage.prefill_ms;
  engine.decode_ms += usage.decode_ms;
}

Json usage_json(const ReplyUsage& usage) {
  const engine::Usage& e = usage.engine;
  return {{"prompt_tokens", e.prompt_tokens},
          {"completion_tokens", e.completion_tokens},
          {"total_tokens", e.prompt_tokens + e.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", e.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

Json timings_json(const ReplyUsage& usage) {
  const engine::Usage& e = usage.engine;
  const bool has_rate = e.completion_tokens > 1 && e.decode_ms > 0;
  return {{"cache_n", e.cached_tokens},
          {"prompt_n", e.prompt_tokens - e.cached_tokens},
          {"prompt_ms", e.prefill_ms},
          {"predicted_n", e.completion_tokens},
          {"predicted_ms", e.decode_ms},
          {"predicted_per_second", has_rate ? static_cast<double>(e.completion_tokens - 1) * 1e3 / e.decode_ms : 0.0},
          {"queue_ms", e.queue_ms},
          {"ttft_ms", usage.ttft_ms}};
}

Json delta_json(const Delta& delta, ReasoningField field) {
  Json json = Json::object();
  switch (delta.kind) {
    case Delta::Kind::reasoning:
      add_reasoning(json, delta.text, field);
      break;
    case Delta::Kind::content:
      json["content"] = delta.text;
      break;
    case Delta::Kind::call_begin:
      json["tool_calls"] = {{{"index", delta.index},
                             {"id", delta.id},
                             {"type", "function"},
                             {"function", {{"name", delta.text}, {"arguments", ""}}}}};
      break;
    case Delta::Kind::call_args:
      json["tool_calls"] = {{{"index", delta.index}, {"function", {{"arguments", delta.text}}}}};
      break;
  }
  return json;
}

Json message_json(const ReplyMessage& message, const std::vector<int>& healed_calls, ReasoningField field) {
  const bool silent = message.content.empty() && !message.calls.empty();
  Json json = {{"role", "assistant"}, {"content", silent ? Json(nullptr) : Json(message.content)}};
  if (!message.reasoning.empty()) add_reasoning(json, message.reasoning, field);
  for (const auto& call : message.calls) {
    json["tool_calls"].push_back(
        {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  json["refusal"] = nullptr;
  if (!healed_calls.empty()) json["nibble"] = {{"healed_tool_calls", healed_calls}};
  return json;
}

Json chat_chunk(const ReplyHead& head, Json delta, std::optional<std::string_view> finish_reason, bool usage_follows) {
  Json chunk = head_json(head, kChatChunk);
  Json choice = {{"index", 0}, {"delta", std::move(delta)}, {"logprobs", nullptr}};
  choice["finish_reason"] = reason_json(finish_reason);
  chunk["choices"] = Json::array({std::move(choice)});
  if (usage_follows) chunk["usage"] = nullptr;
  return chunk;
}

Json text_chunk(const ReplyHead& head, size_t index, std::string text, std::optional<std::string_view> finish_reason,
                bool usage_follows) {
  Json chunk = head_json(head, kText);
  Json choice = {{"index", index}, {"text", std::move(text)}, {"logprobs", nullptr}};
  choice["finish_reason"] = reason_json(finish_reason);
  chunk["choices"] = Json::array({std::move(choice)});
  if (usage_follows) chunk["usage"] = nullptr;
  return chunk;
}

Json usage_chunk(const ReplyHead& head, std::string_view object, const ReplyUsage& usage) {
  return response_json(head, object, Json::array(), usage);
}

Json response_json(const ReplyHead& head, std::string_view object, Json choices, const ReplyUsage& usage) {
  Json response = head_json(head, object);
  response["choices"] = std::move(choices);
  response["usage"] = usage_json(usage);
  response["timings"] = timings_json(usage);
  return response;
}

}  // namespace nibble::serve
