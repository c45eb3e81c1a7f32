#include "synth/output.h"

#include <set>

#include "base/sha256.h"
#include "gate/chat_stream.h"
#include "text/prompt_lock.h"

namespace nibble::synth {
namespace {

Json category_json(const CategoryReport& one) {
  return {{"quota", one.category->quota}, {"accepted", one.count.accepted}, {"asked", one.asked},
          {"rounds", one.rounds},         {"surplus", one.count.surplus},   {"rejected", one.count.rejected}};
}

std::string sha256_of_prompts(const std::set<std::string>& prompts) {
  Sha256 hash;
  for (const std::string& prompt : prompts) hash.add(prompt);
  return hash.hex();
}

}  // namespace

Path journal_path(const Path& output) {
  return output.string() + ".journal";
}

Path manifest_path(const Path& output) {
  return output.string() + ".manifest.json";
}

Json row_of(const Recipe& recipe, const Validator& validator, const Accepted& accepted, const Origin& origin) {
  const Candidate& one = accepted.candidate;
  Json row = one.record;
  row["id"] = fmt::format("{}-{}-{}-{}", recipe.name, accepted.category->id, accepted.cell, one.index);
  row["category"] = accepted.category->id;
  row["persona"] = one.persona;
  const auto tokens = validator.check().tokens(one.record);
  Json meta = {{"recipe", recipe.name},
               {"recipe_version", recipe.version},
               {"fingerprint", recipe.fingerprint.substr(0, 16)},
               {"cell", accepted.cell},
               {"index", one.index},
               {"attempts", one.attempts},
               {"teacher", origin.teacher},
               {"nibble", origin.version},
               {"sampling", recipe.params},
               {"seed", one.seed},
               {"prompt", one.prompt},
               {"tokens", tokens.ok() ? *tokens : 0},
               {"verdict", "clean"}};
  meta.update(one.draws);
  row["meta"] = std::move(meta);
  return row;
}

Json manifest_of(const Recipe& recipe, const GenerateReport& report, const Origin& origin,
                 const std::string& rows_hash) {
  Json categories = Json::object();
  std::map<std::string, int64_t> rejected;
  for (const CategoryReport& one : report.categories) {
    categories[one.category->id] = category_json(one);
    for (const auto& [reason, rows] : one.count.rejected) rejected[reason] += rows;
  }
  const SetReport& set = report.set;
  return {{"recipe", {{"name", recipe.name}, {"version", recipe.version}, {"fingerprint", recipe.fingerprint}}},
          {"teacher", origin.teacher},
          {"nibble", origin.version},
          {"seed", origin.seed},
          {"conversations", set.rows},
          {"sha256", rows_hash},
          {"complete", report.complete()},
          {"shortfalls", set.shortfalls},
          {"categories", categories},
          {"rejected", rejected},
          {"set",
           {{"with_calls", set.with_calls},
            {"call_share", set.call_share()},
            {"with_empty_result", set.with_empty},
            {"with_failed_result", set.with_failure},
            {"tokens",
             {{"min", set.tokens_min},
              {"median", set.tokens_median},
              {"max", set.tokens_max},
              {"estimated", set.tokens_estimated}}}}},
          {"holdout",
           {{"key", recipe.hold_out.pairs ? "pairs" : "user_text"},
            {"gates", recipe.hold_out.gates},
            {"text_overlap", set.text_overlap}}},
          {"spent",
           {{"requests", report.spent.requests},
            {"prompt_tokens", report.spent.prompt_tokens},
            {"completion_tokens", report.spent.completion_tokens},
            {"cost", report.spent.cost}}}};
}

Result<Json> write_set(const Path& output, const Recipe& recipe, const Validator& validator,
                       const Collection& collection, const GenerateReport& report, const Origin& origin) {
  NIBBLE_TRY(rows, OutputFile::create(output));
  std::string text;
  for (const Accepted& one : collection.accepted()) text += gate::dump(row_of(recipe, validator, one, origin)) + "\n";
  NIBBLE_RETURN_IF_ERROR(rows.write(text));
  NIBBLE_TRY(manifest, OutputFile::create(manifest_path(output)));
  std::set<std::string> prompts;
  for (const Accepted& one : collection.accepted()) {
    prompts.insert(text::system_prompt_of(one.candidate.record["messages"]));
  }
  Json json = manifest_of(recipe, report, origin, sha256_of(text));
  json["prompts"] = {{"system_prompts", prompts.size()},
                     {"system_prompts_sha256", sha256_of_prompts(prompts)},
                     {"tools_sha256", sha256_of(text::tools_text_of(recipe.tools))}};
  NIBBLE_RETURN_IF_ERROR(manifest.write(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"));
  NIBBLE_RETURN_IF_ERROR(rows.commit());
  NIBBLE_RETURN_IF_ERROR(manifest.commit());
  return json;
}

}  // namespace nibble::synth
