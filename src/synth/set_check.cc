#include "synth/set_check.h"

#include <algorithm>

#include "synth/conversation.h"
#include "synth/draw.h"

namespace nibble::synth {
namespace {

constexpr size_t kShown = 5;  // rows with faults that are named

// Why a category has too few: its most frequent reasons.
std::string reasons_of(const CategoryCount& count) {
  std::vector<std::pair<int64_t, std::string>> reasons;
  for (const auto& [reason, rows] : count.rejected) reasons.emplace_back(-rows, reason);
  std::sort(reasons.begin(), reasons.end());
  std::string text;
  for (size_t i = 0; i < reasons.size() && i < 3; ++i) {
    text += fmt::format("{}{} {}", i == 0 ? "; rejected: " : ", ", -reasons[i].first, reasons[i].second);
  }
  return text;
}

void check_quotas(const Recipe& recipe, const Collection& collection, SetReport& report) {
  for (const Category& category : recipe.categories) {
    const auto found = collection.counts().find(category.id);
    const CategoryCount none;
    const CategoryCount& count = found == collection.counts().end() ? none : found->second;
    if (count.accepted == category.quota) continue;
    report.shortfalls.push_back(fmt::format("{}: {} of {} conversations, {} short{}", category.id, count.accepted,
                                            category.quota, category.quota - count.accepted, reasons_of(count)));
  }
}

}  // namespace

Result<SetReport> check_set(const Recipe& recipe, const Validator& validator, const HoldOut& hold_out,
                            const Collection& collection) {
  SetReport report;
  check_quotas(recipe, collection, report);
  std::vector<int64_t> tokens;
  size_t bad = 0;
  for (const Accepted& row : collection.accepted()) {
    const Json& messages = row.candidate.record["messages"];
    NIBBLE_TRY(faults, validator.faults(*row.category, row.candidate.record));
    if (recipe.hold_out.pairs && held_out_pair_of(row.candidate.draws))
      faults.push_back({"holdout", "a pair that is held out"});
    if (!faults.empty() && ++bad <= kShown) {
      report.shortfalls.push_back(fmt::format("{} cell {} conversation {}: {}", row.category->id, row.cell,
                                              row.candidate.index + 1, to_text(faults)));
    }
    ++report.rows;
    report.with_calls += count_calls(messages) > 0 ? 1 : 0;
    bool empty = false, failed = false;
    for (const Json& message : messages) {
      if (message["role"] != "tool") continue;
      empty |= is_empty_result(message["content"].get<std::string>());
      failed |= is_failed_result(message["content"].get<std::string>());
    }
    report.with_empty += empty ? 1 : 0;
    report.with_failure += failed ? 1 : 0;
    report.text_overlap += hold_out.overlap_of(messages) ? 1 : 0;
    NIBBLE_TRY(length, validator.check().tokens(row.candidate.record));
    tokens.push_back(length);
  }
  if (bad > kShown) report.shortfalls.push_back(fmt::format("{} more conversations with faults", bad - kShown));
  report.tokens_estimated = validator.check().estimates();
  if (!tokens.empty()) {
    std::sort(tokens.begin(), tokens.end());
    report.tokens_min = tokens.front();
    report.tokens_median = tokens[tokens.size() / 2];
    report.tokens_max = tokens.back();
  }
  if (report.rows > 0 && report.call_share() < recipe.set.tool_calls) {
    report.shortfalls.push_back(fmt::format("{:.1f} % of the conversations call a tool, {:.1f} % are asked for",
                                            100 * report.call_share(), 100 * recipe.set.tool_calls));
  }
  return report;
}

}  // namespace nibble::synth
