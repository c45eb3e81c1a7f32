// For tests: an engine that says what it is told to. It queues, cancels and reports as the real one must.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "text/tokenizer.h"

namespace nibble::serve {

/// One reply: its pieces, each an event, then the end.
struct Script {
  std::vector<std::string> pieces = {};
  engine::Finish finish = engine::Finish::stop;
  Status error = {};
  double delay_s = 0;         // before each piece
  bool hangs = false;         // after the pieces nothing happens until the request is cancelled
  double returns_late_s = 0;  // submit returns this long after the engine has begun
};

class ScriptedEngine : public engine::Engine {
 public:
  explicit ScriptedEngine(std::shared_ptr<const text::Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {
    info_.format = "nvfp4";
    info_.quant = "W4A16_NVFP4";
    info_.activations = "a16";
    info_.fingerprint = "0123abcd";
    info_.context = 4096;
    thread_ = std::thread([this] { work(); });
  }
  ~ScriptedEngine() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  /// The replies to come, one per request; beyond them every reply is "ok".
  void say(Script script) {
    const std::lock_guard lock(mutex_);
    scripts_.push_back(std::move(script));
  }
  void say(std::vector<std::string> pieces, engine::Finish finish = engine::Finish::stop) {
    say(Script{std::move(pieces), finish});
  }
  void set_max_queue(size_t n) { max_queue_ = n; }
  /// From now on every request is refused with it.
  void lose(Status why) {
    const std::lock_guard lock(mutex_);
    lost_ = std::move(why);
  }
  Status health() const override {
    const std::lock_guard lock(mutex_);
    return lost_;
  }

  engine::Request last_request() {
    const std::lock_guard lock(mutex_);
    return last_;
  }
  /// When the engine saw a cancellation, by now_s(); 0 before any.
  double cancelled_at() const { return cancelled_at_; }
  int finished() const { return finished_; }

  const engine::Info& info() const override { return info_; }

  Status submit(engine::Request request, engine::Callback callback) override {
    std::unique_lock lock(mutex_);
    if (!lost_.ok()) return lost_;
    if (queue_.size() >= max_queue_) return unavailable("queue: expected at most {} requests", max_queue_.load());
    if (static_cast<int64_t>(request.prompt.size()) >= info_.context) return invalid_argument("prompt: too long");
    last_ = request;
    Script script{{"ok"}};
    if (!scripts_.empty()) {
      script = std::move(scripts_.front());
      scripts_.pop_front();
    }
    const std::chrono::duration<double> late(script.returns_late_s);
    queue_.push_back({std::move(request), std::move(callback), std::move(script)});
    changed_.notify_all();
    lock.unlock();
    std::this_thread::sleep_for(late);
    return {};
  }
  int64_t waiting() const override {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(queue_.size());
  }
  bool running() const override { return running_; }

 private:
  struct Job {
    engine::Request request;
    engine::Callback callback;
    Script script;
  };

  void work() {
    for (;;) {
      Job job;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;
        job = std::move(queue_.front());
        queue_.pop_front();
        running_ = true;
      }
      run(job);
      running_ = false;
      ++finished_;
    }
  }

  // False once the job is cancelled.
  bool pause(const Job& job, double seconds) {
    const Stopwatch watch;
    do {
      end_cancelled_in_queue();
      if (stop_ || job.request.cancel.cancelled()) return false;
      if (seconds > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } while (watch.seconds() < seconds);
    return true;
  }

  void end_cancelled_in_queue() {
    std::vector<Job> gone;
    {
      const std::lock_guard lock(mutex_);
      for (auto it = queue_.begin(); it != queue_.end();) {
        if (!it->request.cancel.cancelled()) {
          ++it;
          continue;
        }
        gone.push_back(std::move(*it));
        it = queue_.erase(it);
      }
    }
    for (Job& job : gone) end(job, engine::Finish::cancelled, 0);
  }

  void run(Job& job) {
    int64_t generated = 0;
    if (!job.request.cancel.cancelled()) job.callback({});
    for (const std::string& piece : job.script.pieces) {
      if (!pause(job, job.script.delay_s)) return end(job, engine::Finish::cancelled, generated);
      engine::Event event;
      (void)tokenizer_->encode(piece, text::AddedTokens::parse, event.tokens);
      event.text = piece;
      generated += static_cast<int64_t>(event.tokens.size());
      job.callback(std::move(event));
    }
    if (job.script.hangs) {
      while (pause(job, 1)) {
      }
      return end(job, engine::Finish::cancelled, generated);
    }
    end(job, job.script.finish, generated);
  }

  void end(Job& job, engine::Finish finish, int64_t generated) {
    if (finish == engine::Finish::cancelled) cancelled_at_ = now_s();
    engine::Event event;
    event.finish = finish;
    event.error = job.script.error;
    event.usage.prompt_tokens = static_cast<int64_t>(job.request.prompt.size());
    event.usage.cached_tokens = 2;
    event.usage.completion_tokens = generated;
    event.usage.decode_ms = 10;
    job.callback(std::move(event));
  }

  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  engine::Info info_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> queue_;
  std::deque<Script> scripts_;
  engine::Request last_;
  Status lost_;
  std::atomic<size_t> max_queue_{64};
  std::atomic<bool> stop_{false}, running_{false};
  std::atomic<double> cancelled_at_{0};
  std::atomic<int> finished_{0};
  std::thread thread_;
};

}  // namespace nibble::serve
