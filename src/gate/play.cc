#include "gate/play.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/sha256.h"
#include "gate/chat_stream.h"
#include "gate/judge.h"
#include "gate/mocks.h"

namespace nibble::gate {
namespace {

Status pause(double ms, const CancelToken& cancel) {
  for (const Stopwatch watch; watch.ms() < ms;) {
    if (cancel.cancelled()) return cancelled("gate: cancelled");
    std::this_thread::sleep_for(std::chrono::milliseconds(std::clamp<int64_t>(static_cast<int64_t>(ms), 1, 10)));
  }
  return {};
}

class Play {
 public:
  Play(ChatEndpoint& endpoint, const Case& one, const Detectors& detectors, const PlayOptions& options, int repeat)
      : endpoint_(endpoint), case_(one), detectors_(detectors) {
    system_ = hardened(one.system, options.hardening);
    request_.tools = one.tools;
    request_.params = one.params;
    request_.params["seed"] = options.seed + repeat - 1;
    if (options.temperature >= 0) request_.params["temperature"] = options.temperature;
    if (!options.template_kwargs) request_.params.erase("chat_template_kwargs");
    if (!system_.empty()) request_.messages.push_back({{"role", "system"}, {"content", system_}});
    for (const Json& message : one.history) request_.messages.push_back(message);
  }

  Status run(CaseRecord& record, bool play_on) {
    for (const Turn& turn : case_.turns) {
      NIBBLE_RETURN_IF_ERROR(pause(turn.pause_ms, endpoint_.options().cancel));
      PlayedTurn& played = record.turns.emplace_back();
      played.user = turn.user;
      std::optional<std::string> context;
      const Status status = play_turn(turn, played, context);
      const bool server = status.code() == Code::unavailable || status.code() == Code::invalid_argument ||
                          status.code() == Code::corrupt;
      if (server && asking_) {
        record.error = status.text();
        played.anomalies.push_back({"http", status.message()});
        return {};
      }
      NIBBLE_RETURN_IF_ERROR(status);
      const PlayedTurn* before = record.turns.size() < 2 ? nullptr : &record.turns[record.turns.size() - 2];
      NIBBLE_TRY(anomalies, detectors_.of_turn(played, before));
      played.anomalies.insert(played.anomalies.end(), anomalies.begin(), anomalies.end());
      if (context) NIBBLE_RETURN_IF_ERROR(judge(turn, played, *context));
      if (aborted_ || (!played.passed() && !play_on)) return {};
    }
    return {};
  }

 private:
  // `ended_by`: what was said before the reply that ends the turn, where one did.
  Status play_turn(const Turn& turn, PlayedTurn& played, std::optional<std::string>& ended_by) {
    MockTools tools(turn.mocks);
    request_.messages.push_back({{"role", "user"}, {"content", turn.user}});
    request_.interrupt_after_chars = turn.interrupt_after_chars;
    for (size_t round = 0;; ++round) {
      asking_ = true;
      auto answer = endpoint_.complete(request_);
      if (!answer.ok() && answer.status().code() == Code::io) {
        aborted_ = true;
        played.failures.push_back({"aborted", answer.status().message()});
        return {};
      }
      NIBBLE_TRY(said, std::move(answer));
      asking_ = false;
      std::string context = context_text(request_.messages);
      request_.messages.push_back(assistant_message(said.reply));
      PlayedMessage& message = played.messages.emplace_back();
      message.said = std::move(said);
      NIBBLE_TRY(anomalies, detectors_.of_message(message, system_, context));
      message.anomalies = std::move(anomalies);
      if (message.said.reply.calls.empty() || turn.one_reply) {
        ended_by = std::move(context);
        return {};
      }
      NIBBLE_RETURN_IF_ERROR(answer_calls(tools, message, played));
      if (round == Detectors::kMaxRounds) {
        played.failures.push_back(
            {"tool_loop",
             fmt::format("expected a reply after {} rounds of calls, got another call", Detectors::kMaxRounds)});
        return {};
      }
    }
  }

  Status answer_calls(MockTools& tools, PlayedMessage& message, PlayedTurn& played) {
    for (const ToolCall& call : message.said.reply.calls) {
      NIBBLE_TRY(mock, tools.answer(call));
      if (mock == nullptr) played.anomalies.push_back({"unmatched_tool", call.name + " " + call.arguments, true});
      if (mock != nullptr) NIBBLE_RETURN_IF_ERROR(pause(mock->delay_ms, endpoint_.options().cancel));
      message.results.emplace_back(mock == nullptr ? MockTools::kNotFound : mock->result);
      request_.messages.push_back(tool_message(call, message.results.back()));
    }
    return {};
  }

  Status judge(const Turn& turn, PlayedTurn& played, const std::string& context) {
    NIBBLE_TRY(failures, judge_turn(turn, played, {context, detectors_.names()}));
    played.failures = std::move(failures);
    if (!turn.expect.judge.empty()) played.not_judged = "judge: " + turn.expect.judge;
    return {};
  }

  ChatEndpoint& endpoint_;
  const Case& case_;
  const Detectors& detectors_;
  std::string system_;
  ChatRequest request_;
  bool asking_ = false, aborted_ = false;
};

}  // namespace

std::string hardened(const std::string& system, const std::string& hardening) {
  return system + (system.empty() || hardening.empty() ? "" : "\n\n") + hardening;
}

std::string case_key(const Case& one, const PlayOptions& options, int repeat, const std::string& model,
                     const std::string& recipe_hash) {
  return Sha256()
      .add(recipe_hash)
      .add(model)
      .add(one.id)
      .add(one.system)
      .add(dump(one.tools))
      .add(dump(one.params))
      .add(options.hardening)
      .add(fmt::format("{} {} {}", options.seed, options.temperature, repeat))
      .hex();
}

Result<CaseRecord> play_case(ChatEndpoint& endpoint, const Case& one, const Detectors& detectors,
                             const PlayOptions& options, int repeat) {
  CaseRecord record;
  record.id = one.id;
  record.category = one.category;
  record.gates = one.gates;
  record.repeat = repeat;
  const int retried = endpoint.retried();
  NIBBLE_RETURN_IF_ERROR(Play(endpoint, one, detectors, options, repeat).run(record, options.play_on));
  record.retries = endpoint.retried() - retried;
  return record;
}

}  // namespace nibble::gate
