// The JSON of replies: chunks and whole responses of chat and plain completions, in OpenAI's shapes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "io/json.h"
#include "serve/reply.h"
#include "serve/serve_options.h"

namespace nibble::serve {

/// What every chunk of one reply repeats.
struct ReplyHead {
  std::string id;  // "chatcmpl-…" or "cmpl-…"
  int64_t created = 0;
  std::string model, fingerprint;
};

/// Usage of a whole response: the sum over its choices.
struct ReplyUsage {
  engine::Usage engine;
  int64_t reasoning_tokens = 0;
  double ttft_ms = 0;  // from the complete request to the first piece of the reply

  void add(const engine::Usage& usage);
};

Json usage_json(const ReplyUsage& usage);
/// llama.cpp's form; the rate leaves the first token out, which prefill pays for.
Json timings_json(const ReplyUsage& usage);

/// The object that stands in choices[0].delta.
Json delta_json(const Delta& delta, ReasoningField field);
/// The object that stands in choices[0].message.
Json message_json(const ReplyMessage& message, const std::vector<int>& healed_calls, ReasoningField field);

/// A chunk of a chat stream. `usage_follows`: the chunk carries "usage": null.
Json chat_chunk(const ReplyHead& head, Json delta, std::optional<std::string_view> finish_reason, bool usage_follows);
/// A chunk of a completion stream.
Json text_chunk(const ReplyHead& head, size_t index, std::string text, std::optional<std::string_view> finish_reason,
                bool usage_follows);
/// The last chunk of either: no choices, but usage and timings.
Json usage_chunk(const ReplyHead& head, std::string_view object, const ReplyUsage& usage);

/// A whole response around its choices.
Json response_json(const ReplyHead& head, std::string_view object, Json choices, const ReplyUsage& usage);

inline constexpr std::string_view kChatChunk = "chat.completion.chunk", kChat = "chat.completion",
                                  kText = "text_completion";

}  // namespace nibble::serve
