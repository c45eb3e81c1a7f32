// Engine: a prompt of token ids in, a stream of token ids and text out. It knows neither HTTP nor chat messages, and
// its callers know neither tensors nor weights.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"

namespace nibble::engine {

/// One link of the sampler chain each; the defaults switch every link off but plain sampling.
struct Sampling {
  float temperature = 1.0f;           // 0 = argmax, ties to the lowest id
  float top_p = 1.0f;                 // (0,1]
  int top_k = 0;                      // 0 = off
  float min_p = 0.0f;                 // [0,1], relative to the most likely token
  float presence_penalty = 0.0f;      // -2..2, once per token seen in the output
  float frequency_penalty = 0.0f;     // -2..2, per occurrence in the output
  float repetition_penalty = 1.0f;    // (0,10], over prompt and output
  std::optional<uint64_t> seed = {};  // the same seed and prompt give the same text at any load
};

struct Request {
  std::vector<int32_t> prompt;  // at least one id, at most Info::context - 1
  Sampling sampling;
  int64_t max_tokens = 0;  // new tokens, at least 1; clipped to the context
  int64_t min_tokens = 0;  // stop tokens are masked before that
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;    // beside the model's own stop set
  std::vector<int32_t> masked_token_ids;  // never sampled
  CancelToken cancel;                     // set it from any thread; the engine looks between blocks of a forward
};

enum class Finish : uint8_t { stop, length, cancelled, error };

struct Usage {
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
  double queue_ms = 0, prefill_ms = 0, decode_ms = 0;
};

/// What a request yields, in order: an empty event when it leaves the queue, any number of events with tokens, then
/// exactly one with `finish`. A request cancelled in the queue yields only the last.
struct Event {
  std::vector<int32_t> tokens;  // new ids; a stop token is counted in usage but not listed
  std::string text;             // what they add to the text: whole UTF-8 characters only, control tokens left out
  std::optional<Finish> finish;
  Usage usage;   // valid once finish is set
  Status error;  // set for Finish::error
};

/// Called on the engine's thread; it must not block.
using Callback = std::function<void(Event)>;

struct Info {
  std::string format;         // "bf16", "nvfp4", …
  std::string quant;          // quant_algo or the layout's other word, or empty
  std::string activations;    // "a16", "a4", …: what the inputs of the weights are rounded to
  std::string numeric;        // "exact" or "bf16_act"
  std::string fingerprint;    // 8 hex digits over config and tensor headers
  int64_t context = 0;        // tokens of prompt and reply together
  Sampling default_sampling;  // from generation_config.json
};

/// Thread-safe. Destruction cancels what is queued or running; how many requests run at once is the engine's affair.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const Info& info() const = 0;

  /// Queues the request. `unavailable` when the queue is full, `invalid_argument` when the prompt does not fit,
  /// `not_found` when a replay has no reply for it, `device` as health(). After an error there are no events.
  virtual Status submit(Request request, Callback callback) = 0;

  /// ok, or why no request can be answered any more: its GPU is lost.
  virtual Status health() const { return {}; }

  virtual int64_t waiting() const = 0;  // requests queued, the running one not counted
  virtual bool running() const = 0;     // whether any request is
};

}  // namespace nibble::engine
