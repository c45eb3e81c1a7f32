#include "gate/model_judge.h"

#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "base/sha256.h"
#include "gate/chat_stream.h"
#include "io/journal.h"
#include "io/object_reader.h"

namespace nibble::gate {
namespace {

constexpr int kMaxTokens = 400;
constexpr size_t kShownDisagreements = 50;
constexpr Word<Opinion> kOpinions[] = {{"yes", Opinion::yes}, {"no", Opinion::no}, {"unsure", Opinion::unsure}};

constexpr const char* kPlayTask =
    "You examine conversations with a voice assistant. Say whether the assistant's part of the conversation meets the "
    "rubric. Judge only by the rubric; length and politeness count only where it names them. Answer with JSON: "
    "{\"verdict\": \"yes\", \"no\" or \"unsure\", \"reason\": one sentence}.";
constexpr const char* kPairTask =
    "You examine two conversations with voice assistants in which the user says the same. Say which of them meets the "
    "rubric better. Judge only by the rubric; length and politeness count only where it names them. Answer with JSON: "
    "{\"verdict\": \"first\", \"second\" or \"same\", \"reason\": one sentence}.";

// What a case is judged by: the questions of its turns, or what it is for.
std::string rubric_of(const Case& one) {
  std::string rubric;
  for (const Turn& turn : one.turns) {
    if (!turn.expect.judge.empty()) rubric += (rubric.empty() ? "" : "\n") + turn.expect.judge;
  }
  return rubric.empty() ? "This conversation must not show the following fault: " + one.why : rubric;
}

std::string shown(const CaseRecord& record) {
  std::string text;
  for (const PlayedTurn& turn : record.turns) {
    text += "User: " + turn.user + "\n";
    for (const PlayedMessage& message : turn.messages) {
      const Reply& said = message.said.reply;
      if (!said.content.empty()) text += "Assistant: " + said.content + "\n";
      for (size_t i = 0; i < said.calls.size(); ++i) {
        text += "Assistant calls " + said.calls[i].name + " " + said.calls[i].arguments + "\n";
        if (i < message.results.size()) text += "Result: " + message.results[i] + "\n";
      }
    }
  }
  return text;
}

struct Answer {
  std::string verdict, reason;
};

// One judge and what it has said. Any thread may ask.
class Judge {
 public:
  explicit Judge(const JudgeOptions& options) : options_(options) {}

  Status open() {
    if (options_.log.empty()) return {};
    const auto known = [this](const Json& line, uint64_t) -> Status {
      ObjectReader reader(line, options_.log.string());
      std::string key;
      Answer answer;
      reader.text("key", key);
      reader.text("verdict", answer.verdict);
      reader.text("reason", answer.reason);
      NIBBLE_RETURN_IF_ERROR(reader.finish());
      answers_[key] = answer;
      return {};
    };
    NIBBLE_TRY(journal, Journal::open(options_.log, {{"schema", 1}, {"judge", options_.endpoint.model}},
                                      Journal::Mode::resume, known));
    journal_.emplace(std::move(journal));
    return {};
  }

  Result<Answer> ask(ChatEndpoint& endpoint, const char* task, const std::string& question,
                     const std::vector<std::string>& verdicts) {
    const std::string key = Sha256().add(options_.endpoint.model).add(task).add(question).hex();
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = answers_.find(key); found != answers_.end()) return found->second;
    }
    ChatRequest request;
    request.messages = {{{"role", "system"}, {"content", task}}, {{"role", "user"}, {"content", question}}};
    const Json schema = {{"type", "object"},
                         {"properties", {{"verdict", {{"enum", verdicts}}}, {"reason", {{"type", "string"}}}}},
                         {"required", {"verdict", "reason"}},
                         {"additionalProperties", false}};
    request.params = {
        {"temperature", 0},
        {"max_tokens", kMaxTokens},
        {"response_format", {{"type", "json_schema"}, {"json_schema", {{"name", "verdict"}, {"schema", schema}}}}}};
    NIBBLE_TRY(said, endpoint.complete(request));
    NIBBLE_TRY(answer, parse(said.reply.content, verdicts));
    const std::lock_guard lock(mutex_);
    if (journal_) {
      const Json line = {{"key", key}, {"verdict", answer.verdict}, {"reason", answer.reason}};
      NIBBLE_RETURN_IF_ERROR(journal_->append(line).status());
    }
    answers_[key] = answer;
    return answer;
  }

  // body(i, endpoint) for i < n on the threads that were asked for, until one fails.
  Status each(size_t n, const Progress& progress, const std::function<Status(size_t, ChatEndpoint&)>& body) {
    std::atomic<size_t> next = 0;
    std::atomic<bool> failed = false;
    size_t done = 0;
    Status error;
    std::mutex mutex;
    const auto work = [&] {
      ChatEndpoint endpoint(options_.endpoint);
      for (size_t i; !failed && (i = next++) < n;) {
        const Status status = body(i, endpoint);
        const std::lock_guard lock(mutex);
        report(progress, ++done, n, "judge");
        if (status.ok() || failed.exchange(true)) continue;
        error = status;
      }
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < options_.jobs; ++i) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
    return error;
  }

 private:
  Result<Answer> parse(const std::string& text, const std::vector<std::string>& verdicts) const {
    const auto json = parse_json(text, "judge");
    if (json.ok() && json->is_object()) {
      const Json &verdict = member(*json, "verdict"), &reason = member(*json, "reason");
      for (const std::string& word : verdicts) {
        if (verdict.is_string() && verdict.get_ref<const std::string&>() == word && reason.is_string()) {
          return Answer{word, reason.get<std::string>()};
        }
      }
    }
    return unavailable("judge: expected {{\"verdict\": …, \"reason\": …}} from {}, got {}", options_.endpoint.model,
                       text.substr(0, 200))
        .with_hint("take a judge that follows response_format");
  }

  const JudgeOptions& options_;
  std::mutex mutex_;
  std::optional<Journal> journal_;
  std::map<std::string, Answer> answers_;
};

}  // namespace

Result<std::vector<JudgedPlay>> judge_plays(const Recipe& recipe, const Records& records, const JudgeOptions& options,
                                            const Progress& progress) {
  Judge judge(options);
  NIBBLE_RETURN_IF_ERROR(judge.open());
  std::vector<JudgedPlay> plays;
  std::vector<const Case*> cases;
  for (const Case& one : recipe.cases) {
    for (int repeat = 1; repeat <= options.repeats; ++repeat) {
      auto record = records.get(one.id, repeat);
      if (record.ok() && record->turns.empty()) continue;
      if (!record.ok() && record.status().code() == Code::not_found) continue;
      if (!record.ok()) return record.status();
      plays.push_back({.id = one.id, .repeat = repeat, .passed = record->passed(), .reason = {}});
      cases.push_back(&one);
    }
  }
  NIBBLE_RETURN_IF_ERROR(judge.each(plays.size(), progress, [&](size_t i, ChatEndpoint& endpoint) -> Status {
    NIBBLE_TRY(record, records.get(plays[i].id, plays[i].repeat));
    const std::string question = "Rubric:\n" + rubric_of(*cases[i]) + "\n\nConversation:\n" + shown(record);
    NIBBLE_TRY(answer, judge.ask(endpoint, kPlayTask, question, {"yes", "no", "unsure"}));
    for (const auto& [text, opinion] : kOpinions) {
      if (answer.verdict == text) plays[i].opinion = opinion;
    }
    plays[i].reason = answer.reason;
    return {};
  }));
  return plays;
}

Result<std::vector<JudgedPair>> judge_pairs(const Recipe& recipe, const Records& a, const Records& b,
                                            const JudgeOptions& options, const Progress& progress) {
  Judge judge(options);
  NIBBLE_RETURN_IF_ERROR(judge.open());
  std::vector<JudgedPair> pairs;
  std::vector<const Case*> cases;
  for (const Case& one : recipe.cases) {
    for (int repeat = 1; repeat <= options.repeats; ++repeat) {
      const auto of_a = a.get(one.id, repeat), of_b = b.get(one.id, repeat);
      if (!of_a.ok() || !of_b.ok() || shown(*of_a) == shown(*of_b)) continue;
      pairs.push_back({.id = one.id, .repeat = repeat});
      cases.push_back(&one);
    }
  }
  NIBBLE_RETURN_IF_ERROR(judge.each(pairs.size(), progress, [&](size_t i, ChatEndpoint& endpoint) -> Status {
    JudgedPair& pair = pairs[i];
    NIBBLE_TRY(of_a, a.get(pair.id, pair.repeat));
    NIBBLE_TRY(of_b, b.get(pair.id, pair.repeat));
    for (const bool a_first : {true, false}) {
      const std::string question = "Rubric:\n" + rubric_of(*cases[i]) + "\n\nFirst conversation:\n" +
                                   shown(a_first ? of_a : of_b) + "\nSecond conversation:\n" +
                                   shown(a_first ? of_b : of_a);
      NIBBLE_TRY(answer, judge.ask(endpoint, kPairTask, question, {"first", "second", "same"}));
      if (answer.verdict != "same") ++(((answer.verdict == "first") == a_first) ? pair.for_a : pair.for_b);
    }
    return {};
  }));
  return pairs;
}

Json to_json(const std::vector<JudgedPlay>& plays, const std::string& model) {
  int64_t count[3] = {}, agree = 0;
  Json disagree = Json::array();
  for (const JudgedPlay& play : plays) {
    ++count[static_cast<size_t>(play.opinion)];
    if (play.opinion == Opinion::unsure) continue;
    if (play.passed == (play.opinion == Opinion::yes)) {
      ++agree;
    } else if (disagree.size() < kShownDisagreements) {
      disagree.push_back({{"id", play.id},
                          {"repeat", play.repeat},
                          {"passed", play.passed},
                          {"opinion", text_of(kOpinions, play.opinion)},
                          {"reason", play.reason}});
    }
  }
  return {{"model", model},     {"n", plays.size()}, {"yes", count[0]},     {"no", count[1]},
          {"unsure", count[2]}, {"agree", agree},    {"disagree", disagree}};
}

Json to_json(const std::vector<JudgedPair>& pairs, const std::string& model) {
  int64_t a = 0, b = 0;
  for (const JudgedPair& pair : pairs) {
    a += pair.for_a > 0 && pair.for_b == 0;
    b += pair.for_b > 0 && pair.for_a == 0;
  }
  return {
      {"model", model}, {"n", pairs.size()}, {"a", a}, {"b", b}, {"tie", static_cast<int64_t>(pairs.size()) - a - b}};
}

std::string judge_text(const Json& json) {
  const auto count = [&](const char* key) { return member(json, key).is_number() ? json[key].get<int64_t>() : 0; };
  const std::string model = member(json, "model").is_string() ? json["model"].get<std::string>() : "";
  if (json.contains("tie")) {
    return fmt::format(
        "judge {}: of {} plays with different replies the first is better in {}, the second in {}, "
        "neither in {}\n",
        model, count("n"), count("a"), count("b"), count("tie"));
  }
  return fmt::format("judge {}: yes {}, no {}, unsure {}; of the same mind as the rules in {} of {}\n", model,
                     count("yes"), count("no"), count("unsure"), count("agree"), count("yes") + count("no"));
}

}  // namespace nibble::gate
