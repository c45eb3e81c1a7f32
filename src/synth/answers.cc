#include "synth/answers.h"

#include <ctime>

#include "base/sha256.h"
#include "gate/chat_stream.h"
#include "io/object_reader.h"

namespace nibble::synth {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;

Json line_of(const AnswerKey& key, const Recorded& recorded, const std::string& teacher) {
  Json line = {{"category", key.category},
               {"cell", key.cell},
               {"attempt", key.attempt},
               {"step", key.step},
               {"prompt", recorded.prompt}};
  const Answer& answer = recorded.answer;
  if (recorded.lost) {
    line["lost"] = *recorded.lost;
  } else {
    line["text"] = answer.reply.content;
    if (!answer.reply.reasoning.empty()) line["reasoning"] = answer.reply.reasoning;
    for (const gate::ToolCall& call : answer.reply.calls) {
      line["calls"].push_back({{"name", call.name}, {"arguments", call.arguments}});
    }
    line["finish"] = answer.finish;
    line["prompt_tokens"] = answer.prompt_tokens;
    line["completion_tokens"] = answer.completion_tokens;
    line["ms"] = answer.ms;
  }
  line["time"] = static_cast<int64_t>(std::time(nullptr));
  line["teacher"] = teacher;
  return line;
}

}  // namespace

std::string prompt_hash(const Question& question) {
  return Sha256()
      .add(gate::dump(question.messages))
      .add(gate::dump(question.tools))
      .add(gate::dump(question.params))
      .add_values(std::span<const int64_t>(&question.seed, 1))
      .hex()
      .substr(0, 16);
}

Status Answers::take(const Json& line) {
  ObjectReader reader(line, "journal");
  AnswerKey key;
  Recorded recorded;
  Answer& answer = recorded.answer;
  std::string lost, teacher;
  int64_t time = 0;
  for (const char* name : {"category", "cell", "attempt", "step", "prompt"}) reader.require(name);
  reader.text("category", key.category);
  reader.whole_number("cell", 0, kMost, key.cell);
  reader.whole_number("attempt", 0, kMost, key.attempt);
  reader.whole_number("step", 0, kMost, key.step);
  reader.text("prompt", recorded.prompt);
  reader.text("lost", lost);
  reader.text("text", answer.reply.content);
  reader.text("reasoning", answer.reply.reasoning);
  if (const Json* calls = reader.value("calls")) {
    for (const Json& call : *calls) {
      answer.reply.calls.push_back(
          {fmt::format("call_{}", answer.reply.calls.size() + 1),
           gate::member(call, "name").is_string() ? call["name"].get<std::string>() : "",
           gate::member(call, "arguments").is_string() ? call["arguments"].get<std::string>() : ""});
    }
  }
  reader.text("finish", answer.finish);
  reader.whole_number("prompt_tokens", 0, kMost, answer.prompt_tokens);
  reader.whole_number("completion_tokens", 0, kMost, answer.completion_tokens);
  reader.number("ms", 0, 1e12, answer.ms);
  reader.whole_number("time", 0, kMost, time);
  reader.text("teacher", teacher);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  if (line.contains("lost")) recorded.lost = lost;
  recorded_.insert_or_assign(key, std::move(recorded));
  return {};
}

Result<std::unique_ptr<Answers>> Answers::open(const Path& path, const Json& header, Journal::Mode mode,
                                               std::string teacher) {
  auto answers = std::make_unique<Answers>();
  answers->teacher_ = std::move(teacher);
  NIBBLE_TRY(journal,
             Journal::open(path, header, mode, [&](const Json& line, uint64_t) { return answers->take(line); }));
  answers->journal_.emplace(std::move(journal));
  return answers;
}

std::optional<Recorded> Answers::find(const AnswerKey& key, const std::string& prompt) const {
  const std::lock_guard lock(mutex_);
  const auto found = recorded_.find(key);
  if (found == recorded_.end() || found->second.prompt != prompt) return std::nullopt;
  return found->second;
}

Status Answers::add(const AnswerKey& key, const Recorded& recorded) {
  if (journal_) NIBBLE_RETURN_IF_ERROR(journal_->append(line_of(key, recorded, teacher_)).status());
  const std::lock_guard lock(mutex_);
  recorded_.insert_or_assign(key, recorded);
  return {};
}

size_t Answers::size() const {
  const std::lock_guard lock(mutex_);
  return recorded_.size();
}

}  // namespace nibble::synth
