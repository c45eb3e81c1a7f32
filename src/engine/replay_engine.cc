#include "engine/replay_engine.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "base/log.h"

namespace nibble::engine {
namespace {

// How long a delay may go on after its request was cancelled.
constexpr double kPollSeconds = 0.01;

struct Job {
  Request request;
  Callback callback;
  const ReplayEntry* entry;
  Stopwatch queued = {};

  // Of the worker.
  bool begun = false, ended = false;
  size_t next = 0;       // chunk
  double due_s = 0;      // when it is to be said
  double begun_s = 0;    // when the prompt was taken
  double speaks_s = -1;  // when the first text was said
  Usage usage = {};
};

// The worker's part of the engine. The worker shares it, so that the engine may be destroyed by one of its callbacks.
class Stage {
 public:
  Stage(ReplayScript script, std::shared_ptr<const text::Tokenizer> tokenizer, int64_t max_running)
      : script_(std::move(script)),
        tokenizer_(std::move(tokenizer)),
        max_running_(max_running),
        used_(script_.entries.size()) {
    for (ReplayEntry& entry : script_.entries) {
      for (std::string& text : entry.contains) text = as_in_prompt(text);
    }
  }

  Status submit(Request request, Callback callback) {
    const std::string prompt = tokenizer_->decode(request.prompt);
    {
      const std::lock_guard lock(mutex_);
      if (running_ >= max_running_) return unavailable("replay: expected at most {} requests at once", max_running_);
      const int64_t number = requests_++;
      const ReplayEntry* entry = take_entry(prompt, number);
      if (entry == nullptr) {
        return not_found("replay: expected an entry for request {}, got none ({})", number, script_.name);
      }
      if (entry->refuse) {
        return unavailable("replay: {}:{} refuses request {}", script_.name, entry->line, number);
      }
      arrived_.push_back({std::move(request), std::move(callback), entry});
      ++running_;
    }
    wake_.notify_one();
    return {};
  }

  bool running() const {
    const std::lock_guard lock(mutex_);
    return running_ > 0;
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
  }

  // The worker's loop; returns after stop(), when every request has had its last event.
  void work() {
    std::vector<Job> jobs;
    std::unique_lock lock(mutex_);
    while (true) {
      const auto called = [this] { return stop_ || !arrived_.empty(); };
      if (jobs.empty()) {
        wake_.wait(lock, called);
      } else {
        wake_.wait_for(lock, std::chrono::duration<double>(silence(jobs)), called);
      }
      std::ranges::move(arrived_, std::back_inserter(jobs));
      arrived_.clear();
      if (stop_) std::ranges::for_each(jobs, [](const Job& job) { job.request.cancel.cancel(); });
      if (stop_ && jobs.empty()) return;
      lock.unlock();
      for (Job& job : jobs) job.ended = advance(job);
      const auto ended = static_cast<int64_t>(std::erase_if(jobs, [](const Job& job) { return job.ended; }));
      lock.lock();
      running_ -= ended;
    }
  }

 private:
  // Prompts are in the tokenizer's normal form, so what is looked for in them must be, too.
  std::string as_in_prompt(const std::string& text) const {
    std::vector<int32_t> ids;
    return tokenizer_->encode(text, text::AddedTokens::ignore, ids).ok() ? tokenizer_->decode(ids) : text;
  }

  // The entry that answers, counted as used, or null; mutex_ is held.
  const ReplayEntry* take_entry(const std::string& prompt, int64_t number) {
    for (size_t i = 0; i < script_.entries.size(); ++i) {
      const ReplayEntry& entry = script_.entries[i];
      if (entry.index && *entry.index != number) continue;
      if (entry.times && used_[i] >= *entry.times) continue;
      const auto occurs = [&](const std::string& text) { return prompt.find(text) != std::string::npos; };
      if (!std::ranges::all_of(entry.contains, occurs)) continue;
      ++used_[i];
      return &entry;
    }
    return nullptr;
  }

  // How long nothing needs to be done.
  static double silence(const std::vector<Job>& jobs) {
    const double now = now_s();
    double seconds = kPollSeconds;
    for (const Job& job : jobs) seconds = std::min(seconds, job.due_s - now);
    return std::max(seconds, 0.0);
  }

  // Says what is due. True once the job has had its last event.
  bool advance(Job& job) const {
    if (job.request.cancel.cancelled()) return end(job, Finish::cancelled);
    if (!job.begun) begin(job);
    const std::vector<ReplayChunk>& chunks = job.entry->chunks;
    while (job.next < chunks.size() && job.due_s <= now_s()) {
      if (job.request.cancel.cancelled()) return end(job, Finish::cancelled);
      const Status said = say(job, chunks[job.next++].text);
      if (!said.ok()) return end(job, Finish::error, said);
      if (job.next < chunks.size()) job.due_s += seconds_of(chunks[job.next]);
    }
    if (job.next < chunks.size()) return false;
    if (job.entry->finish != Finish::error) return end(job, job.entry->finish);
    return end(job, Finish::error, io("replay: {}:{} ends with an error", script_.name, job.entry->line));
  }

  static double seconds_of(const ReplayChunk& chunk) { return static_cast<double>(chunk.delay_ms) / 1e3; }

  static void begin(Job& job) {
    job.begun = true;
    job.begun_s = job.due_s = now_s();
    job.usage.queue_ms = job.queued.ms();
    if (!job.entry->chunks.empty()) job.due_s += seconds_of(job.entry->chunks[0]);
    job.callback({});
  }

  Status say(Job& job, const std::string& text) const {
    if (text.empty()) return {};
    Event event;
    NIBBLE_RETURN_IF_ERROR(tokenizer_->encode(text, text::AddedTokens::parse, event.tokens));
    event.text = text;
    job.usage.completion_tokens += static_cast<int64_t>(event.tokens.size());
    if (job.speaks_s < 0) job.speaks_s = now_s();
    job.callback(std::move(event));
    return {};
  }

  static bool end(Job& job, Finish finish, Status error = {}) {
    if (finish == Finish::error) spdlog::error("engine: {}", error.text());
    const double now = now_s();
    const double speaks = job.speaks_s < 0 ? now : job.speaks_s;
    Event event;
    event.finish = finish;
    event.error = std::move(error);
    event.usage = job.usage;
    event.usage.prompt_tokens = static_cast<int64_t>(job.request.prompt.size());
    if (job.begun) {
      event.usage.prefill_ms = (speaks - job.begun_s) * 1e3;
      event.usage.decode_ms = (now - speaks) * 1e3;
    } else {
      event.usage.queue_ms = job.queued.ms();
    }
    job.callback(std::move(event));
    return true;
  }

  ReplayScript script_;  // const after construction
  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  const int64_t max_running_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<int64_t> used_;  // how often, by entry
  std::vector<Job> arrived_;   // not yet seen by the worker
  int64_t requests_ = 0, running_ = 0;
  bool stop_ = false;
};

class ReplayEngine final : public Engine {
 public:
  ReplayEngine(ReplayScript script, std::shared_ptr<const text::Tokenizer> tokenizer, const ReplayOptions& options)
      : tokenizer_(std::move(tokenizer)) {
    info_.format = "replay";
    info_.fingerprint = script.fingerprint;
    info_.context = options.context;
    stage_ = std::make_shared<Stage>(std::move(script), tokenizer_, options.max_running);
    worker_ = std::thread([stage = stage_] { stage->work(); });
  }

  ~ReplayEngine() override {
    stage_->stop();
    // A callback may hold the last reference to the engine, and then this is the worker.
    if (worker_.get_id() == std::this_thread::get_id()) {
      worker_.detach();
    } else {
      worker_.join();
    }
  }

  const Info& info() const override { return info_; }

  Status submit(Request request, Callback callback) override {
    const auto n = static_cast<int64_t>(request.prompt.size());
    if (n < 1 || n >= info_.context) {
      return invalid_argument("prompt: expected 1 to {} tokens, got {}", info_.context - 1, n);
    }
    for (const int32_t id : request.prompt) {
      if (!tokenizer_->known(id)) return invalid_argument("prompt: expected known token ids, got {}", id);
    }
    return stage_->submit(std::move(request), std::move(callback));
  }

  int64_t waiting() const override { return 0; }
  bool running() const override { return stage_->running(); }

 private:
  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  Info info_;
  std::shared_ptr<Stage> stage_;
  std::thread worker_;
};

}  // namespace

std::shared_ptr<Engine> start_replay(ReplayScript script, std::shared_ptr<const text::Tokenizer> tokenizer,
                                     const ReplayOptions& options) {
  return std::make_shared<ReplayEngine>(std::move(script), std::move(tokenizer), options);
}

}  // namespace nibble::engine
