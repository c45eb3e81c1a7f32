#include "engine/local_engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "engine/sampler.h"
#include "model/forward.h"
#include "text/stream_decoder.h"

namespace nibble::engine {
namespace {

constexpr int64_t kDefaultContext = 8192;

DType kv_dtype(Numeric numeric) {
  return numeric == Numeric::exact ? DType::f32 : DType::bf16;
}

int64_t context_of(const model::Config& config, const EngineOptions& options) {
  return options.context > 0 ? options.context : std::min(kDefaultContext, config.max_positions);
}

Sampling default_sampling(const checkpoint::Generation& g) {
  Sampling sampling;
  sampling.temperature = g.do_sample.value_or(true) ? g.temperature.value_or(sampling.temperature) : 0.0f;
  sampling.top_p = g.top_p.value_or(sampling.top_p);
  sampling.top_k = g.top_k.value_or(sampling.top_k);
  sampling.min_p = g.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = g.repetition_penalty.value_or(sampling.repetition_penalty);
  return sampling;
}

struct Job {
  Request request;
  Callback callback;
  Stopwatch queued;
};

class LocalEngine final : public Engine {
 public:
  LocalEngine(std::shared_ptr<const checkpoint::LoadedModel> model, std::shared_ptr<const text::Tokenizer> tokenizer,
              const EngineOptions& options)
      : model_(std::move(model)),
        tokenizer_(std::move(tokenizer)),
        max_queue_(options.max_queue),
        pool_(options.threads),
        cx_(pool_, options.numeric),
        state_(config(), context_of(config(), options), kv_dtype(options.numeric)) {
    info_.format = model_->format.format;
    info_.quant = model_->quantization.algo;
    info_.activations = model_->format.activations;
    info_.numeric = name(options.numeric);
    info_.fingerprint = model_->fingerprint;
    info_.context = state_.capacity();
    info_.default_sampling = default_sampling(model_->generation);
    for (int32_t id = 0; id < static_cast<int32_t>(config().vocab); ++id) {
      if (!tokenizer_->known(id)) unknown_.push_back(id);
    }
    worker_ = std::thread([this] { work(); });
  }

  ~LocalEngine() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      for (Job& job : queue_) job.request.cancel.cancel();
      if (running_) running_->cancel();
    }
    wake_.notify_one();
    worker_.join();
  }

  const Info& info() const override { return info_; }

  Status submit(Request request, Callback callback) override {
    NIBBLE_RETURN_IF_ERROR(check(request));
    {
      std::lock_guard lock(mutex_);
      if (live_jobs() >= max_queue_) {
        return unavailable("engine: expected at most {} waiting requests", max_queue_).with_hint("try again later");
      }
      queue_.push_back({std::move(request), std::move(callback), {}});
    }
    wake_.notify_one();
    return {};
  }

  int64_t waiting() const override {
    std::lock_guard lock(mutex_);
    return live_jobs();
  }
  bool running() const override {
    std::lock_guard lock(mutex_);
    return running_.has_value();
  }

 private:
  const model::Config& config() const { return model_->weights.config; }
  const std::vector<int32_t>& stop_ids() const { return model_->generation.stop_ids; }

  // Queued requests that somebody still waits for; mutex_ is held.
  int64_t live_jobs() const {
    return std::count_if(queue_.begin(), queue_.end(), [](const Job& job) { return !job.request.cancel.cancelled(); });
  }

  Status check(const Request& request) const {
    const auto n = static_cast<int64_t>(request.prompt.size());
    if (n < 1 || n >= info_.context) {
      return invalid_argument("prompt: expected 1 to {} tokens, got {}", info_.context - 1, n);
    }
    if (request.max_tokens < 1) return invalid_argument("max_tokens: expected at least 1, got {}", request.max_tokens);
    for (int32_t id : request.prompt) {
      if (id < 0 || id >= config().vocab) {
        return invalid_argument("prompt: expected token ids in [0, {}), got {}", config().vocab, id);
      }
    }
    return {};
  }

  void work() {
    while (true) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;  // stopped, and everything queued has had its last event
      Job job = std::move(queue_.front());
      queue_.pop_front();
      running_ = job.request.cancel;
      if (stop_) running_->cancel();
      lock.unlock();
      run(job);
      lock.lock();
      running_.reset();
    }
  }

  // One request from its first forward to its last event.
  void run(Job& job) {
    const Request& request = job.request;
    Usage usage{.prompt_tokens = static_cast<int64_t>(request.prompt.size()), .queue_ms = job.queued.ms()};
    cx_.cancel = request.cancel;
    if (!request.cancel.cancelled()) job.callback({});
    state_.reset();
    const Arena::Scope scope(cx_.arena);
    Tensor logits = cx_.arena.f32({1, config().vocab});

    Stopwatch clock;
    Status status = model::read_prompt(cx_, model_->weights, request.prompt, state_, logits);
    usage.prefill_ms = clock.ms();
    Finish finish = Finish::cancelled;
    if (status.ok()) {
      clock = {};
      status = decode(job, logits, usage, finish);
      usage.decode_ms = clock.ms();
    }
    if (!status.ok() && status.code() != Code::cancelled) {
      finish = Finish::error;
      spdlog::error("engine: {}", status.text());
    }
    Event last;
    last.finish = finish;
    last.usage = usage;
    if (finish == Finish::error) last.error = status;
    job.callback(std::move(last));
  }

  // Samples until a stop token, the limit, or a cancelled request.
  Status decode(const Job& job, Tensor& logits, Usage& usage, Finish& finish) {
    const Request& request = job.request;
    const int64_t limit = std::min(request.max_tokens, info_.context - usage.prompt_tokens);
    Sampler sampler(request.sampling, request.prompt, std::random_device{}());
    text::StreamDecoder decoder(*tokenizer_);
    std::vector<int32_t> masked = unknown_;
    masked.insert(masked.end(), request.masked_token_ids.begin(), request.masked_token_ids.end());
    const size_t always_masked = masked.size();
    if (request.min_tokens > 0) {
      masked.insert(masked.end(), stop_ids().begin(), stop_ids().end());
      masked.insert(masked.end(), request.stop_token_ids.begin(), request.stop_token_ids.end());
    }
    const Arena::Scope scope(cx_.arena);
    Tensor hidden = cx_.arena.f32({1, config().hidden});
    while (true) {
      if (request.cancel.cancelled()) return cancelled("request");
      if (usage.completion_tokens == request.min_tokens) masked.resize(always_masked);
      const int32_t id = sampler.sample(logits.f32_span(), masked);
      ++usage.completion_tokens;
      const bool stop = is_stop(request, id);
      const bool full = usage.completion_tokens == limit;
      Event event;
      if (!stop) {
        event.tokens.push_back(id);
        event.text = decoder.feed(id);
      }
      if (stop || full) event.text += decoder.finish();
      if (!event.tokens.empty() || !event.text.empty()) job.callback(std::move(event));
      if (stop || full) {
        finish = stop ? Finish::stop : Finish::length;
        return {};
      }
      NIBBLE_RETURN_IF_ERROR(model::forward(cx_, model_->weights, {&id, 1}, state_, hidden));
      model::head(cx_, model_->weights, hidden, logits);
    }
  }

  bool is_stop(const Request& request, int32_t id) const {
    const auto holds = [id](const std::vector<int32_t>& ids) {
      return std::find(ids.begin(), ids.end(), id) != ids.end();
    };
    return holds(request.stop_token_ids) || (!request.ignore_eos && holds(stop_ids()));
  }

  const std::shared_ptr<const checkpoint::LoadedModel> model_;
  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  const int64_t max_queue_;
  Info info_;
  std::vector<int32_t> unknown_;  // ids of the head that the tokenizer does not know: never sampled

  // Touched by the worker alone.
  ThreadPool pool_;
  Context cx_;
  model::State state_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> queue_;
  std::optional<CancelToken> running_;
  bool stop_ = false;
  std::thread worker_;  // last: it starts when everything above is there
};

}  // namespace

uint64_t state_bytes(const model::Config& config, const EngineOptions& options) {
  return model::State::bytes_needed(config, context_of(config, options), kv_dtype(options.numeric));
}

Result<std::shared_ptr<Engine>> start_engine(std::shared_ptr<const checkpoint::LoadedModel> model,
                                             std::shared_ptr<const text::Tokenizer> tokenizer,
                                             const EngineOptions& options) {
  const model::Config& config = model->weights.config;
  if (options.context < 0 || options.context > config.max_positions) {
    return invalid_argument("--context: expected at most {} tokens (max_position_embeddings), got {}",
                            config.max_positions, options.context);
  }
  if (tokenizer->id_limit() > config.vocab) {
    return invalid_argument("tokenizer.json: expected ids below vocab_size {}, got {}", config.vocab,
                            tokenizer->id_limit() - 1);
  }
  return std::shared_ptr<Engine>(std::make_shared<LocalEngine>(std::move(model), std::move(tokenizer), options));
}

}  // namespace nibble::engine
