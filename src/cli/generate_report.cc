#include "cli/generate_report.h"

#include "cli/terminal.h"
#include "gate/chat_stream.h"
#include "synth/conversation.h"
#include "synth/output.h"

namespace nibble::cli {
namespace {

// 1,234,567
std::string grouped(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string reasons(const synth::CategoryCount& count) {
  std::string text;
  for (const auto& [reason, rows] : count.rejected)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", rows, reason);
  return text;
}

}  // namespace

std::string spent_text(const synth::Spent& spent) {
  const std::string tokens = grouped(spent.tokens()) + " tokens";
  return spent.cost > 0 ? fmt::format("{}, cost {:.2f}", tokens, spent.cost) : tokens;
}

void print_preview(const synth::Accepted& one) {
  fmt::print("{} ({})\n", one.category->id, one.candidate.faults.empty() ? "would be accepted" : "would be rejected");
  for (const Json& message : one.candidate.record["messages"]) {
    if (message["role"] == "system") continue;
    const auto content = message["content"].get<std::string>();
    if (!content.empty()) fmt::print("  {:<9}  {}\n", message["role"].get<std::string>(), printable(content));
    synth::for_each_call(message, [](const Json& function) {
      fmt::print("  {:<9}  {} {}\n", "call", printable(function["name"].get<std::string>()),
                 printable(gate::dump(function["arguments"])));
    });
  }
  for (const synth::Fault& fault : one.candidate.faults)
    fmt::print("  ! {}: {}\n", fault.reason, printable(fault.detail));
  fmt::print("\n");
}

Json preview_json(Json row, const synth::Accepted& one) {
  Json faults = Json::array();
  for (const synth::Fault& fault : one.candidate.faults)
    faults.push_back({{"reason", fault.reason}, {"detail", fault.detail}});
  return {{"accepted", one.candidate.faults.empty()}, {"faults", std::move(faults)}, {"row", std::move(row)}};
}

void print_report(const synth::GenerateReport& report, const Path& output) {
  std::vector<std::vector<std::string>> rows = {{"category", "quota", "accepted", "asked", "rejected"}};
  for (const synth::CategoryReport& one : report.categories) {
    rows.push_back({one.category->id, std::to_string(one.category->quota), std::to_string(one.count.accepted),
                    std::to_string(one.asked), reasons(one.count)});
  }
  fmt::print("{}\n", table(rows));
  const synth::SetReport& set = report.set;
  fmt::print(
      "{}",
      table({{"conversations", std::to_string(set.rows)},
             {"with a call", fmt::format("{} ({:.1f} %); {} with an empty result, {} with a failed one", set.with_calls,
                                         100 * set.call_share(), set.with_empty, set.with_failure)},
             {"length", fmt::format("{} / {} / {}   min / median / max tokens{}", set.tokens_min, set.tokens_median,
                                    set.tokens_max, set.tokens_estimated ? ", estimated" : "")},
             {"overlap with gates", fmt::format("{} conversations share a text of the user", set.text_overlap)},
             {"spent", fmt::format("{} in {} requests", spent_text(report.spent), report.spent.requests)}}));
  if (report.complete()) {
    fmt::print("\nwrote {} and {}\n", output.string(), synth::manifest_path(output).string());
    return;
  }
  fmt::print("\nfalls short, nothing was written:\n");
  if (report.stop != synth::Stop::none) fmt::print("  {}\n", printable(report.stop_status.message()));
  for (const std::string& shortfall : set.shortfalls) fmt::print("  {}\n", printable(shortfall));
  fmt::print("the answers are kept in {}; --resume goes on with them\n", synth::journal_path(output).string());
}

}  // namespace nibble::cli
