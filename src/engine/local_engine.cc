#include "engine/local_engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "engine/memory_plan.h"
#include "engine/reply.h"

namespace nibble::engine {
namespace {

constexpr int64_t kDefaultContext = 8192;

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

/// What the model runs on: a context of the CPU, or of a GPU with the weights copied there.
struct Machine {
  ThreadPool pool;
  std::unique_ptr<Stream> stream;
  std::optional<Context> cx;
  std::optional<model::Weights> on_device;
  const model::Weights* weights = nullptr;
  std::unique_ptr<model::BatchRunner> runner;

  explicit Machine(int threads) : pool(threads) {}
};

Result<std::unique_ptr<Machine>> start_machine(const checkpoint::LoadedModel& model, const EngineOptions& options,
                                               std::span<const uint8_t> allowed) {
  auto machine = std::make_unique<Machine>(options.threads);
  machine->weights = &model.weights;
  if (options.device.is_cuda()) {
    if (options.numeric == Numeric::exact) {
      return unsupported("--device cuda: activations are BF16 there").with_hint("--exact belongs to --device cpu");
    }
    NIBBLE_TRY(stream, Stream::open(options.device));
    machine->stream = std::move(stream);
    machine->cx.emplace(machine->pool, options.numeric, *machine->stream);
    NIBBLE_RETURN_IF_ERROR(machine->cx->arena.reserve(model::kUploadBytes));
    NIBBLE_TRY(weights, model::to_device(*machine->cx, model.weights));
    machine->on_device.emplace(std::move(weights));
    machine->weights = &*machine->on_device;
  } else {
    machine->cx.emplace(machine->pool, options.numeric);
  }
  NIBBLE_TRY(runner, model::BatchRunner::create(*machine->cx, *machine->weights,
                                                runner_options(options, options.context), allowed));
  machine->runner = std::move(runner);
  return machine;
}

class LocalEngine final : public Engine {
 public:
  LocalEngine(std::shared_ptr<const checkpoint::LoadedModel> model, std::shared_ptr<const text::Tokenizer> tokenizer,
              const EngineOptions& options, ReplyRules rules, std::unique_ptr<Machine> machine)
      : model_(std::move(model)),
        tokenizer_(std::move(tokenizer)),
        max_queue_(options.max_queue),
        rules_(std::move(rules)),
        machine_(std::move(machine)),
        runner_(*machine_->runner),
        speakers_(static_cast<size_t>(options.slots)),
        logits_(static_cast<size_t>(config().vocab)),
        chosen_(static_cast<size_t>(options.slots)) {
    info_.format = model_->format.format;
    info_.quant = model_->quantization.algo;
    info_.activations = model_->format.activations;
    info_.numeric = name(options.numeric);
    info_.fingerprint = model_->fingerprint;
    info_.context = rules_.context;
    info_.default_sampling = default_sampling(model_->generation);
    worker_ = std::thread([this] { work(); });
  }

  ~LocalEngine() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      for (Job& job : queue_) job.request.cancel.cancel();
      for (const auto& [slot, token] : running_) token.cancel();
    }
    wake_.notify_one();
    worker_.join();
  }

  const Info& info() const override { return info_; }

  Status submit(Request request, Callback callback) override {
    NIBBLE_RETURN_IF_ERROR(check(request));
    {
      std::lock_guard lock(mutex_);
      NIBBLE_RETURN_IF_ERROR(Status(lost_));
      if (live_jobs() >= max_queue_) {
        return unavailable("engine: expected at most {} waiting requests", max_queue_).with_hint("try again later");
      }
      queue_.push_back({std::move(request), std::move(callback), {}});
    }
    wake_.notify_one();
    return {};
  }

  Status health() const override {
    std::lock_guard lock(mutex_);
    return lost_;
  }
  int64_t waiting() const override {
    std::lock_guard lock(mutex_);
    return live_jobs();
  }
  bool running() const override {
    std::lock_guard lock(mutex_);
    return !running_.empty();
  }

 private:
  /// A reply in its slot.
  struct Active {
    Reply reply;
    int64_t position;  // of `last`
    int32_t last;
  };

  const model::Config& config() const { return model_->weights.config; }

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

  bool idle() const {
    return std::ranges::none_of(speakers_, [](const auto& active) { return active.has_value(); });
  }

  // A queued request goes before the next token of those that speak: it waits for one step at most.
  void work() {
    while (true) {
      std::optional<Job> job;
      const auto free = std::ranges::find_if(speakers_, [](const auto& active) { return !active.has_value(); });
      {
        std::unique_lock lock(mutex_);
        if (idle()) wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (queue_.empty() && idle()) return;  // stopped, and everything queued has had its last event
        if (free != speakers_.end() && !queue_.empty()) {
          job = std::move(queue_.front());
          queue_.pop_front();
          running_[free - speakers_.begin()] = job->request.cancel;
          if (stop_) job->request.cancel.cancel();
        }
      }
      if (job) {
        begin(std::move(*job), free - speakers_.begin());
      } else {
        step();
      }
    }
  }

  // Reads the prompt and says the first token.
  void begin(Job job, int64_t slot) {
    const double queue_ms = job.queued.ms();
    machine_->cx->cancel = job.request.cancel;
    const Stopwatch clock;
    std::optional<Active>& active = speakers_[static_cast<size_t>(slot)];
    active.emplace(Active{Reply(rules_, std::move(job.request), std::move(job.callback), queue_ms), 0, 0});
    changed_ = true;
    Reply& reply = active->reply;
    const auto rule = reply.rule(slot);
    Status status = health();
    if (status.ok() && rule && rule->seen >= 0) status = runner_.begin_output(slot, reply.request().prompt);
    if (status.ok()) status = runner_.read(slot, 0, reply.request().prompt, rule.value_or(ops::SampleRule()));
    int32_t id = 0;
    if (status.ok() && rule) status = runner_.chosen(std::span(chosen_).first(1));
    if (status.ok()) status = next(reply, rule.has_value(), 0, id);
    machine_->cx->cancel = {};
    reply.read(clock.ms());
    if (!status.ok()) return end(active, status);
    active->position = static_cast<int64_t>(reply.request().prompt.size());
    active->last = id;
    if (reply.say(id)) end(active, {});
  }

  // The next id of a reply: the one the runner chose, which is in chosen_, or from a row of its logits.
  Status next(Reply& reply, bool chosen, int64_t row, int32_t& id) {
    if (chosen) {
      id = chosen_[static_cast<size_t>(row)];
      return {};
    }
    NIBBLE_RETURN_IF_ERROR(runner_.logits_of(row, logits_));
    id = reply.sample(logits_);
    changed_ = true;  // what the runner would go on with is another one
    return {};
  }

  // One token for everybody who speaks.
  void step() {
    std::vector<model::Speaker> rows;
    std::vector<std::optional<Active>*> who;
    std::vector<bool> chosen;  // by the runner
    for (size_t slot = 0; slot < speakers_.size(); ++slot) {
      std::optional<Active>& active = speakers_[slot];
      if (active && active->reply.cancelled()) end(active, nibble::cancelled("request"));
      if (!active) continue;
      const auto at = static_cast<int64_t>(slot);
      const auto rule = active->reply.rule(at);
      rows.push_back({at, active->position, active->last, rule.value_or(ops::SampleRule())});
      who.push_back(&active);
      chosen.push_back(rule.has_value());
    }
    if (rows.empty()) return;
    Status status;
    if (changed_) status = runner_.set(rows);
    changed_ = false;
    if (status.ok()) status = runner_.step();
    if (status.ok() && std::ranges::find(chosen, true) != chosen.end()) {
      status = runner_.chosen(std::span(chosen_).first(rows.size()));
    }
    for (size_t row = 0; row < who.size(); ++row) {
      std::optional<Active>& active = *who[row];
      int32_t id = 0;
      if (status.ok()) status = next(active->reply, chosen[row], static_cast<int64_t>(row), id);
      if (!status.ok()) {
        end(active, status);
        continue;
      }
      ++active->position;
      active->last = id;
      if (active->reply.say(id)) end(active, {});
    }
  }

  void end(std::optional<Active>& active, const Status& status) {
    // A stream keeps its error: nothing runs on it again, and whoever asks is told so at once.
    const bool asks = !status.ok() && status.code() != Code::cancelled && machine_->stream != nullptr;
    Status lost = asks ? machine_->stream->wait() : Status();
    {
      std::lock_guard lock(mutex_);
      if (!lost.ok() && lost_.ok()) {
        lost_ = Status(Code::device, "the GPU is lost: " + lost.message()).with_hint(std::string(lost.hint()));
      }
      running_.erase(&active - speakers_.data());
    }
    active->reply.end(status);
    active.reset();
    changed_ = true;
  }

  const std::shared_ptr<const checkpoint::LoadedModel> model_;
  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  const int64_t max_queue_;
  const ReplyRules rules_;
  Info info_;

  // Touched by the worker alone.
  const std::unique_ptr<Machine> machine_;
  model::BatchRunner& runner_;
  std::vector<std::optional<Active>> speakers_;  // by slot
  std::vector<float> logits_;
  std::vector<int32_t> chosen_;
  bool changed_ = true;  // whether the runner must be told who speaks and what was said last

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> queue_;
  std::map<std::ptrdiff_t, CancelToken> running_;  // by slot
  bool stop_ = false;
  Status lost_;         // why the GPU answers no more
  std::thread worker_;  // last: it starts when everything above is there
};

}  // namespace

int64_t context_of(const model::Config& config, const EngineOptions& options) {
  return options.context > 0 ? options.context : std::min(kDefaultContext, config.max_positions);
}

model::RunnerOptions runner_options(const EngineOptions& options, int64_t context) {
  // On a CPU a multiple of 64: such cuts move no chunk of the delta rule and change no bit.
  const int64_t prefill_rows = options.device.is_cuda() ? 2048 : 256;
  return {.slots = options.slots, .capacity = context, .prefill_rows = prefill_rows};
}

Status check_options(const model::Config& config, const EngineOptions& options) {
  if (options.context < 0 || options.context > config.max_positions) {
    return invalid_argument("--context: expected at most {} tokens (max_position_embeddings), got {}",
                            config.max_positions, options.context);
  }
  if (options.slots < 1 || options.slots > model::kMostSlots) {
    return invalid_argument("--slots: expected 1 to {}, got {}", model::kMostSlots, options.slots);
  }
  return {};
}

Result<std::shared_ptr<Engine>> start_engine(std::shared_ptr<const checkpoint::LoadedModel> model,
                                             std::shared_ptr<const text::Tokenizer> tokenizer,
                                             const EngineOptions& asked) {
  const model::Config& config = model->weights.config;
  NIBBLE_TRY(plan, plan_memory(*model, asked));
  EngineOptions options = asked;
  options.context = plan.context;
  if (tokenizer->id_limit() > config.vocab) {
    return invalid_argument("tokenizer.json: expected ids below vocab_size {}, got {}", config.vocab,
                            tokenizer->id_limit() - 1);
  }
  ReplyRules rules{tokenizer.get(), model->generation.stop_ids, {}, options.context};
  std::vector<uint8_t> allowed(static_cast<size_t>(config.vocab), 1);
  for (int32_t id = 0; id < static_cast<int32_t>(config.vocab); ++id) {
    if (tokenizer->known(id)) continue;
    rules.unknown.push_back(id);
    allowed[static_cast<size_t>(id)] = 0;
  }
  NIBBLE_TRY(machine, start_machine(*model, options, allowed));
  return std::shared_ptr<Engine>(std::make_shared<LocalEngine>(std::move(model), std::move(tokenizer), options,
                                                               std::move(rules), std::move(machine)));
}

}  // namespace nibble::engine
