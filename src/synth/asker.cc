#include "synth/asker.h"

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/rng.h"
#include "synth/record_check.h"

namespace nibble::synth {
namespace {

constexpr double kMaxBackoff_s = 8;
constexpr auto kPoll = std::chrono::milliseconds(20);
constexpr int kFirstLimit = 4;

bool is_final(Code code) {
  return code == Code::invalid_argument || code == Code::not_found || code == Code::unsupported;
}

}  // namespace

Asker::Asker(const AskOptions& options, Prices prices)
    : options_(options),
      aimd_(std::min(kFirstLimit, options.jobs), options.jobs),
      ledger_(prices, options.budget),
      last_answer_s_(now_s()) {}

Status Asker::stop(const Lock&, Stop why, Status status) {
  if (stop_ == Stop::none) {
    stop_ = why;
    stop_status_ = std::move(status);
  }
  changed_.notify_all();
  return cancelled("generate: stopped");
}

Result<Asker::Place> Asker::enter(const Question& question) {
  const int64_t prompt_tokens = estimated_tokens(question.messages, question.tools);
  Lock lock(mutex_);
  for (;; changed_.wait_for(lock, kPoll)) {
    if (stop_ != Stop::none) return cancelled("generate: stopped");
    if (options_.cancel.cancelled()) return stop(lock, Stop::cancelled, cancelled("generate: interrupted"));
    if (in_flight_ >= aimd_.limit() || now_s() < aimd_.open_s()) continue;
    const auto granted = ledger_.reserve(prompt_tokens, question.max_tokens);
    if (granted) {
      ++in_flight_;
      return Place{prompt_tokens, *granted, now_s()};
    }
    // What is in flight may cost less than was reserved for it.
    if (in_flight_ == 0) {
      return stop(lock, Stop::budget,
                  unavailable("budget: {} tokens are spent, and the next request may pass the limit",
                              ledger_.spent().tokens()));
    }
  }
}

Status Asker::leave(const Place& place, const Attempt& attempt) {
  const Lock lock(mutex_);
  --in_flight_;
  ledger_.settle(place.prompt_tokens, place.granted);
  changed_.notify_all();
  if (attempt.status.ok()) {
    ledger_.add(attempt.answer.prompt_tokens, attempt.answer.completion_tokens);
    aimd_.succeeded();
    last_answer_s_ = now_s();
    lost_ = 0;
    return {};
  }
  if (attempt.status.code() == Code::cancelled) return stop(lock, Stop::cancelled, attempt.status);
  if (is_final(attempt.status.code())) return stop(lock, Stop::refused, attempt.status);
  if (!attempt.overloaded) return {};
  aimd_.overloaded(now_s(), place.began_s, attempt.retry_after_s);
  if (now_s() - last_answer_s_ > options_.patience_s) return stop(lock, Stop::unavailable, attempt.status);
  return {};
}

void Asker::rest(double seconds) {
  Lock lock(mutex_);
  for (const Stopwatch watch; watch.seconds() < seconds && stop_ == Stop::none && !options_.cancel.cancelled();) {
    changed_.wait_for(lock, kPoll);
  }
}

Result<Answer> Asker::ask(Teacher& teacher, const Question& question) {
  double backoff = options_.first_backoff_s;
  Rng rng(static_cast<uint64_t>(question.seed));
  for (int tries = 0;;) {
    NIBBLE_TRY(place, enter(question));
    Question asked = question;
    asked.max_tokens = place.granted;
    Attempt attempt = teacher.ask(asked);
    NIBBLE_RETURN_IF_ERROR(leave(place, attempt));
    if (attempt.status.ok()) return std::move(attempt.answer);
    if (attempt.overloaded) continue;
    if (tries++ >= options_.retries) {
      const Lock lock(mutex_);
      if (++lost_ >= kMostLost) return stop(lock, Stop::unavailable, attempt.status);
      return unavailable("{}", attempt.status.message());
    }
    rest(backoff + backoff * rng.uniform(0, 0.5F));
    backoff = std::min(2 * backoff, kMaxBackoff_s);
  }
}

void Asker::count(const Answer& answer) {
  const Lock lock(mutex_);
  ledger_.add(answer.prompt_tokens, answer.completion_tokens);
}

Stop Asker::stopped() const {
  const Lock lock(mutex_);
  return stop_;
}

Status Asker::stop_status() const {
  const Lock lock(mutex_);
  return stop_status_;
}

Spent Asker::spent() const {
  const Lock lock(mutex_);
  return ledger_.spent();
}

}  // namespace nibble::synth
