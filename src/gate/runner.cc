#include "gate/runner.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

// One line of a transcript, cut to what a reader of a report needs.
std::string entry(const char* who, std::string_view text) {
  constexpr size_t kMaxBytes = 300;
  const std::string_view shown = text.substr(0, text::complete_prefix(text.substr(0, kMaxBytes)));
  return fmt::format("{}: {}{}", who, shown, shown.size() < text.size() ? " …" : "");
}

void record(const Reply& reply, std::vector<std::string>& transcript) {
  if (!reply.reasoning.empty()) transcript.push_back(entry("reasoning", reply.reasoning));
  if (!reply.content.empty() || reply.calls.empty()) transcript.push_back(entry("reply", reply.content));
  for (const ToolCall& call : reply.calls) {
    transcript.push_back(entry("call", fmt::format("{} {}", call.name, call.arguments)));
  }
}

// Plays one turn on top of `messages`; the verdict is pass or fail.
Result<Verdict> play_turn(ChatEndpoint& endpoint, const Case& one, const Turn& turn, Json& messages,
                          CaseResult& result) {
  std::vector<Reply> replies;
  result.transcript = {entry("user", turn.user)};
  messages.push_back({{"role", "user"}, {"content", turn.user}});
  while (true) {
    auto answer = endpoint.complete(messages, one.tools);
    if (!answer.ok() && answer.status().code() == Code::io) {
      return Verdict{Verdict::Kind::fail, answer.status().message()};
    }
    NIBBLE_TRY(reply, std::move(answer));
    NIBBLE_TRY(manners, manners_of(reply));
    result.manners |= manners;
    record(reply, result.transcript);
    messages.push_back(assistant_message(reply));
    replies.push_back(std::move(reply));
    Verdict verdict = judge_turn(turn, replies);
    if (verdict.kind != Verdict::Kind::feed_result) return verdict;
    const std::string& fed = turn.tool_results[replies.size() - 1];
    result.transcript.push_back(entry("tool", fed));
    messages.push_back(tool_message(replies.back().calls.front(), fed));
  }
}

// The threads of one run: each takes the next case until none is left or one has met an error.
class Run {
 public:
  Run(const GateOptions& options, const std::vector<Case>& cases, const Progress& progress)
      : options_(options), cases_(cases), progress_(progress), results_(cases.size()) {}

  Status play_all() {
    const int jobs = std::clamp(options_.jobs, 1, static_cast<int>(std::min<size_t>(cases_.size(), 256)));
    std::vector<std::thread> workers;
    for (int i = 1; i < jobs; ++i) workers.emplace_back([this] { work(); });
    work();
    for (std::thread& worker : workers) worker.join();
    return error_;
  }

  std::vector<CaseResult> take_results() { return std::move(results_); }
  int64_t retries() const { return retries_; }

 private:
  void work() {
    ChatEndpoint endpoint(options_.endpoint);
    for (size_t i; !failed_ && (i = next_++) < cases_.size();) {
      auto result = play_case(endpoint, cases_[i]);
      std::lock_guard lock(mutex_);
      if (!result.ok()) {
        if (error_.ok()) error_ = result.status();
        failed_ = true;
        break;
      }
      results_[i] = std::move(result).value();
      report(progress_, ++done_, cases_.size(), cases_[i].id);
    }
    retries_ += endpoint.retried();
  }

  const GateOptions& options_;
  const std::vector<Case>& cases_;
  const Progress& progress_;
  std::vector<CaseResult> results_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::atomic<int64_t> retries_{0};
  std::mutex mutex_;  // over error_, done_, results_ and the caller's progress
  Status error_;
  uint64_t done_ = 0;
};

const char* thinking_name(std::optional<bool> thinking) {
  if (!thinking) return "default";
  return *thinking ? "on" : "off";
}

}  // namespace

Result<CaseResult> play_case(ChatEndpoint& endpoint, const Case& one) {
  CaseResult result{.id = one.id, .category = one.category};
  Json messages = Json::array();
  if (!one.system.empty()) messages.push_back({{"role", "system"}, {"content", one.system}});
  for (size_t i = 0; i < one.turns.size(); ++i) {
    NIBBLE_TRY(verdict, play_turn(endpoint, one, one.turns[i], messages, result));
    if (verdict.kind == Verdict::Kind::fail) {
      result.reason = fmt::format("turn {}: {}", i + 1, verdict.reason);
      return result;
    }
  }
  result.passed = true;
  result.transcript.clear();
  return result;
}

Result<GateReport> run_gate(const GateOptions& options, const Progress& progress) {
  const Stopwatch watch;
  NIBBLE_TRY(cases, read_cases(options.cases));
  if (options.limit > 0 && options.limit < cases.size()) cases.resize(options.limit);
  if (options.sample > 0) cases = stratified(std::move(cases), options.sample);
  GateOptions resolved = options;
  if (resolved.endpoint.model.empty()) {
    NIBBLE_TRY(ids, ChatEndpoint(options.endpoint).models());
    resolved.endpoint.model = ids.front();
  }
  Run run(resolved, cases, progress);
  NIBBLE_RETURN_IF_ERROR(run.play_all());
  GateReport report;
  report.endpoint = resolved.endpoint.url;
  report.model = resolved.endpoint.model;
  report.max_tokens = resolved.endpoint.max_tokens;
  report.temperature = resolved.endpoint.temperature;
  report.thinking = thinking_name(resolved.endpoint.thinking);
  report.seconds = watch.seconds();
  report.retries = run.retries();
  report.results = run.take_results();
  return report;
}

}  // namespace nibble::gate
