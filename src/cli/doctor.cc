#include "checkpoint/doctor/doctor.h"

#include "checkpoint/doctor/rule_table.h"
#include "cli/command.h"
#include "cli/terminal.h"

namespace nibble::cli {
namespace {

using namespace checkpoint::doctor;

struct Flags {
  Path dir, fix;
  std::string target;
  bool json = false, rules = false;
};

Json finding_json(const RuleFinding& found) {
  const Finding& finding = found.finding;
  return {{"id", found.rule->id},          {"title", found.rule->title},      {"level", name(found.level)},
          {"file", finding.evidence.file}, {"field", finding.evidence.field}, {"value", finding.evidence.value},
          {"failure", finding.failure},    {"advice", finding.advice},        {"hurts", names(found.rule->hurts)},
          {"why", found.rule->why},        {"repaired", found.repaired}};
}

Json report_json(const Report& report, const Flags& flags) {
  Json findings = Json::array();
  for (const RuleFinding& found : report.findings) findings.push_back(finding_json(found));
  return {{"folder", flags.dir.string()},         {"target", flags.target.empty() ? Json(nullptr) : Json(flags.target)},
          {"errors", report.count(Level::error)}, {"warnings", report.count(Level::warning)},
          {"notes", report.count(Level::note)},   {"findings", std::move(findings)}};
}

std::string hurt(const Rule& rule) {
  return rule.hurts == Readers::all() ? "every reader" : fmt::format("{}", fmt::join(names(rule.hurts), ", "));
}

void print_report(const Report& report) {
  for (const RuleFinding& found : report.findings) {
    const Finding& finding = found.finding;
    const std::string field = finding.evidence.field.empty() ? "" : ": " + finding.evidence.field;
    fmt::print("{:<8} {:<4} {}\n", name(found.level), found.rule->id, found.rule->title);
    fmt::print("         found   {}{} = {}\n", finding.evidence.file, field, finding.evidence.value);
    const char* label = found.level == Level::note ? "about" : "hurts";
    fmt::print("         {}   {}: {}\n", label, hurt(*found.rule), finding.failure);
    fmt::print("         {} {}\n\n", found.repaired ? "--fix  " : "advice ", finding.advice);
  }
  fmt::print("errors {}, warnings {}, notes {}\n", report.count(Level::error), report.count(Level::warning),
             report.count(Level::note));
}

void print_rules() {
  for (const Rule& rule : kRules) {
    constexpr const char* kRepairs[] = {"no repair", "repaired by --fix", "repaired by --fix with --target"};
    fmt::print("{:<4} {}\n     {}\n     hurts {}; {}\n\n", rule.id, rule.title, rule.why, hurt(rule),
               kRepairs[static_cast<size_t>(rule.repair)]);
  }
}

Result<int> run(const Flags& flags) {
  if (flags.rules) {
    print_rules();
    return 0;
  }
  if (flags.dir.empty()) return invalid_argument("doctor: expected a folder, got none").with_hint("nibble doctor DIR");
  const Asked asked = reader_named(flags.target);
  Report report;
  Json json;
  if (flags.fix.empty()) {
    NIBBLE_TRY(examined, examine(flags.dir, asked));
    report = std::move(examined);
    json = report_json(report, flags);
  } else {
    NIBBLE_TRY(repaired, repair(flags.dir, flags.fix, asked));
    // What is said is about the copy; what was done to it comes first.
    json = report_json(repaired.before, flags);
    Json rules = Json::array();
    for (const Rule* rule : repaired.rules) rules.push_back(rule->id);
    json["fixed"] = {{"folder", flags.fix.string()},
                     {"rules", std::move(rules)},
                     {"changed_files", repaired.changed_files},
                     {"weights_changed", repaired.weights_changed}};
    NIBBLE_TRY(examined, examine(flags.fix, asked));
    report = std::move(examined);
    json["fixed"]["errors"] = report.count(Level::error);
    if (!flags.json) {
      if (repaired.rules.empty()) fmt::print("{}: a copy, as there is nothing to repair\n\n", flags.fix.string());
      for (const Rule* rule : repaired.rules) fmt::print("repaired {:<4} {}\n", rule->id, rule->title);
      if (!repaired.rules.empty()) {
        fmt::print("{}: {}{}\n\n", flags.fix.string(), fmt::join(repaired.changed_files, ", "),
                   repaired.weights_changed ? (repaired.changed_files.empty() ? "weights" : ", weights") : "");
      }
    }
  }
  flags.json ? print_json(json) : print_report(report);
  return report.count(Level::error) > 0 ? 1 : 0;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("doctor", "What would go wrong with a checkpoint folder where, and a repaired copy");
  command->footer(
      "Looks at config, tokenizer, template, processors, lists of modules and tensor names: what would fail in which\n"
      "server or library and why, with what stands in the folder. Exit code 1 where something is wrong for every "
      "reader,\n"
      "or for the one that --target names.\n\n"
      "  nibble doctor models/tiny-voice\n"
      "  nibble doctor OUT --target vllm --fix FIXED");
  command->add_option("DIR", flags->dir, "a checkpoint folder");
  command->add_option("--target", flags->target, "the server or library that shall load it")
      ->check(CLI::IsMember(reader_names()));
  command->add_option("--fix", flags->fix, "write a repaired copy to this new folder");
  command->add_flag("--rules", flags->rules, "list every rule with its reasons");
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli
