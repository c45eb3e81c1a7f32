#include "checkpoint/doctor/doctor.h"

#include <algorithm>

#include "checkpoint/doctor/rule_table.h"
#include "checkpoint/doctor/write_folder.h"

namespace nibble::checkpoint::doctor {
namespace {

bool concerns(const Rule& rule, Asked asked) {
  return !asked || rule.hurts.has(*asked);
}

bool applies(const Rule& rule, const Finding& finding, Asked asked) {
  const bool wanted = rule.repair == Repair::always || (rule.repair == Repair::for_reader && asked);
  return wanted && finding.repairable;
}

bool finds_errors(const std::vector<RuleFinding>& findings) {
  return std::any_of(findings.begin(), findings.end(),
                     [](const RuleFinding& finding) { return finding.level == Level::error; });
}

// Files that are there and cannot be read, but for those that have rules of their own.
void add_faults(const Folder& folder, Report& report) {
  static constexpr Rule kUnreadable{"D0",
                                    "a file that cannot be read",
                                    "Every reader stops at it, or goes without it.",
                                    Readers::all(),
                                    Level::error,
                                    Level::error,
                                    Repair::never,
                                    nullptr,
                                    nullptr};
  for (const auto& [file, status] : folder.faults()) {
    if (file == kTokenizer) continue;
    report.findings.push_back({&kUnreadable, Level::error,
                               Finding{{file, "file", status.message()},
                                       "it cannot be read",
                                       status.hint().empty() ? "fetch the file again" : status.hint(),
                                       false}});
  }
}

Report look(const Folder& folder, Asked asked) {
  Report report{asked, {}};
  add_faults(folder, report);
  for (const Rule& rule : kRules) {
    if (!concerns(rule, asked)) continue;
    if (rule.id == NibbleLoads::kId && finds_errors(report.findings)) continue;
    for (Finding& finding : rule.check(folder, asked)) {
      Level level = asked ? rule.when_asked : rule.level;
      if (finding.level) level = *finding.level;
      const bool repaired = applies(rule, finding, asked);
      report.findings.push_back({&rule, level, std::move(finding), repaired});
    }
  }
  std::stable_sort(report.findings.begin(), report.findings.end(),
                   [](const RuleFinding& a, const RuleFinding& b) { return a.level > b.level; });
  return report;
}

}  // namespace

std::string_view name(Level level) {
  return level == Level::error ? "error" : level == Level::warning ? "warning" : "note";
}

Findings NibbleLoads::check(const Folder& folder, Asked) {
  const Status status = check_checkpoint(folder.path());
  if (status.ok()) return {};
  return {{{"weights", "", status.message()},
           "nibble's loader refuses it, and what others make of it is open",
           status.hint().empty() ? "fetch the model again" : status.hint(),
           false}};
}

size_t Report::count(Level level) const {
  return static_cast<size_t>(std::count_if(findings.begin(), findings.end(),
                                           [&](const RuleFinding& finding) { return finding.level == level; }));
}

Result<Report> examine(const Path& path, Asked asked) {
  NIBBLE_TRY(folder, Folder::open(path));
  return look(folder, asked);
}

Result<Repaired> repair(const Path& path, const Path& output, Asked asked) {
  NIBBLE_TRY(folder, Folder::open(path));
  Repaired out{look(folder, asked), {}, {}, false};
  for (const Rule& rule : kRules) {
    if (!concerns(rule, asked) || rule.fix == nullptr) continue;
    const Findings findings = rule.check(folder, asked);
    const bool any = std::any_of(findings.begin(), findings.end(),
                                 [&](const Finding& finding) { return applies(rule, finding, asked); });
    if (!any) continue;
    NIBBLE_RETURN_IF_ERROR(rule.fix(folder, asked));
    out.rules.push_back(&rule);
  }
  for (const auto& [file, text] : folder.changed_files()) out.changed_files.push_back(file);
  out.weights_changed = folder.changes_tensors();
  NIBBLE_RETURN_IF_ERROR(write_folder(folder, output));
  return out;
}

}  // namespace nibble::checkpoint::doctor
