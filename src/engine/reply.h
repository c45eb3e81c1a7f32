// Reply: a request from its first token to its last event, whatever computes the logits.
#pragma once

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "text/stream_decoder.h"

namespace nibble::engine {

/// What all replies of an engine share.
struct ReplyRules {
  const text::Tokenizer* tokenizer;
  std::vector<int32_t> stop_ids;  // of the model
  std::vector<int32_t> unknown;   // ids of the head that the tokenizer does not know: never sampled
  int64_t context = 0;
};

class Reply {
 public:
  /// `rules` outlive it.
  Reply(const ReplyRules& rules, Request request, Callback callback, double queue_ms);

  const Request& request() const { return request_; }
  bool cancelled() const { return request_.cancel.cancelled(); }
  /// How the next token is chosen from those the tokenizer knows, where that needs nobody to see the logits; its
  /// penalties ask for row `slot` of what was seen. Absent while the request masks ids of its own.
  std::optional<ops::SampleRule> rule(int64_t slot) const;

  /// The prompt has been read.
  void read(double ms);
  /// The next id from its logits [V], which are overwritten.
  int32_t sample(std::span<float> logits);
  /// Says `id`; true when it was the last. Its text goes to the callback.
  bool say(int32_t id);
  /// The last event: how it ended, or for an error that is not `cancelled`, why.
  void end(const Status& status);

 private:
  bool is_stop(int32_t id) const;

  const ReplyRules& rules_;
  Request request_;
  Callback callback_;
  Usage usage_;
  int64_t limit_ = 0;
  Sampler sampler_;
  text::StreamDecoder decoder_;
  std::vector<int32_t> masked_;
  size_t always_masked_ = 0;
  Finish finish_ = Finish::cancelled;
  Stopwatch speaking_;
};

}  // namespace nibble::engine
