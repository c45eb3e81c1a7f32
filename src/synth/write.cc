// Cells of recipes whose teacher writes whole conversations.
#include "synth/answers.h"
#include "synth/cell.h"
#include "synth/conversation.h"
#include "synth/draw.h"
#include "synth/salvage.h"

namespace nibble::synth {
namespace {

std::string turns_text(Range turns) {
  return turns.low == turns.high ? std::to_string(turns.low) : fmt::format("{} to {}", turns.low, turns.high);
}

// What a batch is asked for, and what its conversations get.
struct Batch {
  Words words;         // of the persona and of the prompt
  std::string system;  // for every conversation
};

Result<Batch> batch_of(const CellContext& context, const CellWork& work) {
  const Recipe& recipe = *context.recipe;
  const Category& category = *work.category;
  Batch batch;
  Rng rng = rng_of(recipe, context.seed, category.id, work.cell, "persona");
  draw_words(recipe, recipe.persona, rng, batch.words);
  NIBBLE_TRY(system, fill(recipe.system, batch.words));
  NIBBLE_TRY(brief, fill(category.brief, batch.words));
  batch.system = system;
  std::string rows;
  for (int64_t i = 0; i < work.count && !category.rows.empty(); ++i) {
    Rng draw = rng_of(recipe, context.seed, category.id, work.cell, fmt::format("row {}", i));
    Words words = batch.words;
    draw_words(recipe, category.draw, draw, words);
    NIBBLE_TRY(row, fill(one_of(category.rows, draw), words));
    rows += fmt::format("{}. {}\n", i + 1, row);
  }
  batch.words["category"] = category.id;
  batch.words["brief"] = brief;
  batch.words["system"] = system;
  batch.words["tools"] = recipe.tools.dump(1);
  batch.words["count"] = std::to_string(work.count);
  batch.words["rows"] = rows;
  batch.words["turns"] = turns_text(category.turns);
  batch.words["batch"] = std::to_string(work.cell + 1);
  return batch;
}

Question question_of(const CellContext& context, const CellWork& work, int64_t attempt, std::string prompt) {
  Question question;
  question.messages = Json::array({{{"role", "user"}, {"content", std::move(prompt)}}});
  question.params = context.recipe->params;
  question.max_tokens = context.recipe->max_tokens;
  question.seed = question_seed(context, work, attempt, 0);
  return question;
}

// Puts what was written into the form of records and judges it.
Status judge(const CellContext& context, const CellWork& work, const Batch& batch, const Json& written,
             Candidate& out) {
  const auto messages = read_messages(written);
  out.faults.clear();
  if (!messages.ok()) {
    out.record = {{"messages", Json::array()}, {"tools", context.recipe->tools}};
    out.faults.push_back({"shape", messages.status().message()});
    return {};
  }
  Json all = Json::array({{{"role", "system"}, {"content", batch.system}}});
  for (const Json& message : *messages) all.push_back(message);
  out.record = {{"messages", std::move(all)}, {"tools", context.recipe->tools}};
  NIBBLE_TRY(faults, context.validator->faults(*work.category, out.record));
  out.faults = std::move(faults);
  return {};
}

// The conversations with faults, as they were written, with what is wrong.
Json for_repair(const std::vector<Candidate>& candidates, const std::vector<Json>& written) {
  Json rows = Json::array();
  for (const Candidate& one : candidates) {
    if (one.faults.empty()) continue;
    Json wrong = Json::array();
    for (const Fault& fault : one.faults) wrong.push_back(fault.reason + ": " + fault.detail);
    rows.push_back({{"id", one.index + 1}, {"wrong", wrong}, {"messages", written[static_cast<size_t>(one.index)]}});
  }
  return rows;
}

// By the id that it was handed out with; without ids in their order, if there are as many as were handed out.
Candidate* repaired_one(std::vector<Candidate*>& bad, const Json& row, size_t order, size_t rows) {
  const Json* id = find_value(row, "id");
  if (id == nullptr || !id->is_number_integer()) return rows == bad.size() ? bad[order] : nullptr;
  for (Candidate* one : bad) {
    if (*id == one->index + 1) return one;
  }
  return nullptr;
}

Status repair(const CellContext& context, const CellWork& work, Batch& batch, const std::vector<Json>& written,
              CellResult& result, const Ask& ask) {
  std::vector<Candidate*> bad;
  for (Candidate& one : result.candidates) {
    if (!one.faults.empty()) bad.push_back(&one);
  }
  if (bad.empty()) return {};
  batch.words["rows"] = for_repair(result.candidates, written).dump(1, ' ', false, Json::error_handler_t::replace);
  batch.words["count"] = std::to_string(bad.size());
  NIBBLE_TRY(prompt, fill(context.recipe->repair, batch.words));
  const Question question = question_of(context, work, 1, prompt);
  auto answer = ask(1, 0, question);
  if (!answer.ok()) return answer.status().code() == Code::unavailable ? Status() : answer.status();
  const Salvaged found = salvage(answer->reply.content);
  for (size_t i = 0; i < found.rows.size(); ++i) {
    Candidate* one = repaired_one(bad, found.rows[i], i, found.rows.size());
    if (one == nullptr || one->attempts > 1) continue;
    one->attempts = 2;
    one->prompt = prompt_hash(question);
    one->seed = question.seed;
    NIBBLE_RETURN_IF_ERROR(judge(context, work, batch, found.rows[i]["messages"], *one));
  }
  return {};
}

}  // namespace

Result<CellResult> write_cell(const CellContext& context, const CellWork& work, const Ask& ask) {
  NIBBLE_TRY(batch, batch_of(context, work));
  NIBBLE_TRY(prompt, fill(context.recipe->prompt, batch.words));
  const Question question = question_of(context, work, 0, prompt);
  CellResult result;
  result.asked = work.count;
  auto answer = ask(0, 0, question);
  if (!answer.ok()) {
    if (answer.status().code() != Code::unavailable) return answer.status();
    result.lost = true;
    return result;
  }
  const Salvaged found = salvage(answer->reply.content);
  result.broken = found.broken;
  std::vector<Json> written;
  for (const Json& row : found.rows) {
    if (result.candidates.size() == static_cast<size_t>(work.count)) break;
    Candidate one;
    one.index = static_cast<int64_t>(result.candidates.size());
    one.persona = persona_of(batch.words);
    one.prompt = prompt_hash(question);
    one.seed = question.seed;
    NIBBLE_RETURN_IF_ERROR(judge(context, work, batch, row["messages"], one));
    written.push_back(row["messages"]);
    result.candidates.push_back(std::move(one));
  }
  NIBBLE_RETURN_IF_ERROR(repair(context, work, batch, written, result, ask));
  return result;
}

}  // namespace nibble::synth
