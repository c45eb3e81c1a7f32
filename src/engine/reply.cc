#include "engine/reply.h"

#include <algorithm>
#include <random>

#include "base/log.h"

namespace nibble::engine {

Reply::Reply(const ReplyRules& rules, Request request, Callback callback, double queue_ms)
    : rules_(rules),
      request_(std::move(request)),
      callback_(std::move(callback)),
      sampler_(request_.sampling, request_.prompt, std::random_device{}()),
      decoder_(*rules.tokenizer),
      masked_(rules.unknown) {
  usage_.prompt_tokens = static_cast<int64_t>(request_.prompt.size());
  usage_.queue_ms = queue_ms;
  limit_ = std::min(request_.max_tokens, rules.context - usage_.prompt_tokens);
  masked_.insert(masked_.end(), request_.masked_token_ids.begin(), request_.masked_token_ids.end());
  always_masked_ = masked_.size();
  if (request_.min_tokens > 0) {
    masked_.insert(masked_.end(), rules.stop_ids.begin(), rules.stop_ids.end());
    masked_.insert(masked_.end(), request_.stop_token_ids.begin(), request_.stop_token_ids.end());
  }
  if (!cancelled()) callback_({});
}

std::optional<ops::SampleRule> Reply::rule(int64_t slot) const {
  // Whoever masks once and penalises stays with the Sampler, which knows what it has said.
  const bool masks = !request_.masked_token_ids.empty() || usage_.completion_tokens < request_.min_tokens;
  if (masks || (request_.min_tokens > 0 && sampler_.penalises())) return {};
  ops::SampleRule rule = sampler_.rule(usage_.completion_tokens);
  if (sampler_.penalises()) rule.seen = static_cast<int32_t>(slot);
  return rule;
}

void Reply::read(double ms) {
  usage_.prefill_ms = ms;
  speaking_ = {};
}

int32_t Reply::sample(std::span<float> logits) {
  if (usage_.completion_tokens == request_.min_tokens) masked_.resize(always_masked_);
  return sampler_.sample(logits, masked_);
}

bool Reply::say(int32_t id) {
  ++usage_.completion_tokens;
  const bool stop = is_stop(id), full = usage_.completion_tokens == limit_;
  Event event;
  if (!stop) {
    event.tokens.push_back(id);
    event.text = decoder_.feed(id);
  }
  if (stop || full) event.text += decoder_.finish();
  if (!event.tokens.empty() || !event.text.empty()) callback_(std::move(event));
  if (!stop && !full) return false;
  finish_ = stop ? Finish::stop : Finish::length;
  return true;
}

void Reply::end(const Status& status) {
  if (usage_.completion_tokens > 0) usage_.decode_ms = speaking_.ms();
  Event last;
  last.finish = finish_;
  if (!status.ok() && status.code() != Code::cancelled) {
    spdlog::error("engine: {}", status.text());
    last.finish = Finish::error;
    last.error = status;
  }
  last.usage = usage_;
  callback_(std::move(last));
}

bool Reply::is_stop(int32_t id) const {
  const auto holds = [id](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  return holds(request_.stop_token_ids) || (!request_.ignore_eos && holds(rules_.stop_ids));
}

}  // namespace nibble::engine
