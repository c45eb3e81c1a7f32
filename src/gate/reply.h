// What a model said in one message, and when it came.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nibble::gate {

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON text as the server gave it
};

/// One message of the assistant.
struct Reply {
  std::string content = {};
  std::string reasoning = {};  // what the server kept apart from the content
  std::vector<ToolCall> calls = {};
};

/// Milliseconds after the request was on its way; negative where it did not happen.
struct ReplyTimes {
  double headers_ms = -1;
  double first_chunk_ms = -1;          // TTFT: the first chunk with a choice
  double first_answer_ms = -1;         // TTFAT: the first content or call, reasoning left out
  double end_ms = -1;                  // the last byte
  std::vector<double> answer_ms = {};  // each delta of content or of a call
};

/// What the server counted; negative where it did not say.
struct ReplyUsage {
  int64_t prompt_tokens = -1, cached_tokens = -1, completion_tokens = -1, reasoning_tokens = -1;
};

/// What the server says of its own clock (`timings` of llama.cpp and of nibble); negative where it does not.
struct ServerTimings {
  double prompt_ms = -1, predicted_ms = -1, predicted_per_second = -1;
};

struct StreamedReply {
  Reply reply = {};
  std::string finish = {};  // finish_reason
  ReplyUsage usage = {};
  ReplyTimes times = {};
  ServerTimings timings = {};
  std::vector<size_t> healed = {};         // calls that the server says it closed itself, by index
  std::vector<std::string> disorder = {};  // rules of a chat stream that this one broke, each once
  bool interrupted = false;                // by us: interrupt_after_chars

  /// (completion_tokens - 1) / (last answer delta - first one), in tokens per second; 0 where that is not known.
  double decode_tok_s() const {
    const std::vector<double>& at = times.answer_ms;
    if (usage.completion_tokens < 2 || at.size() < 2 || at.back() <= at.front()) return 0;
    return static_cast<double>(usage.completion_tokens - 1) / (at.back() - at.front()) * 1e3;
  }
};

}  // namespace nibble::gate
