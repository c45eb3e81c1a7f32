#include <map>

#include "cli/command.h"
#include "cli/terminal.h"
#include "gate/chat_stream.h"
#include "gate/run_store.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path store = "runs", output;
  std::string a, b;
  bool json = false;
};

Json to_json(const gate::StoredRun& run) {
  return {{"id", run.id},       {"command", run.command}, {"started", run.started}, {"recipe", run.recipe},
          {"model", run.model}, {"cases", run.cases},     {"passed", run.passed},   {"exit_code", run.exit_code}};
}

// The fields of a gate in a kept report, which may be anybody's.
std::string word(const Json& gate, const char* key) {
  const Json& value = gate::member(gate, key);
  return value.is_string() ? value.get<std::string>() : "-";
}
std::string number(const Json& gate, const char* key) {
  const Json& value = gate::member(gate, key);
  if (value.is_number_integer()) return value.dump();
  return value.is_number() ? fmt::format("{:.4g}", value.get<double>()) : "-";
}

// What a kept report is told by: the gates of a gate's, the figures of a bench's.
const Json& rows_of(const gate::StoredRun& run) {
  const Json& gates = gate::member(run.report, "gates");
  return gates.is_array() ? gates : gate::member(run.report, "figures");
}

Result<int> list(const Flags& flags) {
  NIBBLE_TRY(store, gate::RunStore::open(flags.store, Database::Mode::read));
  NIBBLE_TRY(runs, store.list());
  if (flags.json) {
    Json all = Json::array();
    for (const gate::StoredRun& run : runs) all.push_back(to_json(run));
    print_json(all);
    return 0;
  }
  fmt::print("{:<24}{:<10}{:<22}{:<14}{:<24}{:>12}{:>6}\n", "run", "command", "started", "recipe", "model", "passed",
             "exit");
  for (const gate::StoredRun& run : runs) {
    fmt::print("{:<24}{:<10}{:<22}{:<14}{:<24}{:>5} of {:<4}{:>5}\n", run.id, run.command, run.started, run.recipe,
               run.model, run.passed, run.cases, run.exit_code);
  }
  return 0;
}

Result<int> show(const Flags& flags) {
  NIBBLE_TRY(store, gate::RunStore::open(flags.store, Database::Mode::read));
  NIBBLE_TRY(run, store.get(flags.a));
  if (flags.json) {
    print_json(run.report);
    return 0;
  }
  fmt::print("{}: {} of {} with {}, {}\n\n{:<18}{:>11}{:>10}  {}\n", run.id, run.recipe, run.model, run.command,
             run.started, "gate", "", "value", "verdict");
  for (const Json& gate : rows_of(run)) {
    fmt::print("{:<18}{:>5}/{:<5}{:>10}  {}\n", word(gate, "id"), number(gate, "k"), number(gate, "n"),
               number(gate, "value"), word(gate, "verdict"));
  }
  return 0;
}

Result<int> compare(const Flags& flags) {
  NIBBLE_TRY(store, gate::RunStore::open(flags.store, Database::Mode::read));
  NIBBLE_TRY(a, store.get(flags.a));
  NIBBLE_TRY(b, store.get(flags.b));
  std::map<std::string, std::pair<Json, Json>> gates;  // a gate that a run lacks is null
  for (const Json& gate : rows_of(a)) gates[word(gate, "id")].first = gate;
  for (const Json& gate : rows_of(b)) gates[word(gate, "id")].second = gate;
  Json rows = Json::array();
  for (const auto& [id, pair] : gates) {
    rows.push_back({{"id", id},
                    {"a", gate::member(pair.first, "value")},
                    {"b", gate::member(pair.second, "value")},
                    {"verdict_a", word(pair.first, "verdict")},
                    {"verdict_b", word(pair.second, "verdict")}});
  }
  if (flags.json) {
    print_json({{"a", to_json(a)}, {"b", to_json(b)}, {"gates", rows}});
    return 0;
  }
  fmt::print("A {} ({})\nB {} ({})\n\n{:<18}{:>10}{:>10}  {:<14}{}\n", a.id, a.model, b.id, b.model, "gate", "A", "B",
             "verdict A", "verdict B");
  for (const auto& [id, pair] : gates) {
    fmt::print("{:<18}{:>10}{:>10}  {:<14}{}\n", id, number(pair.first, "value"), number(pair.second, "value"),
               word(pair.first, "verdict"), word(pair.second, "verdict"));
  }
  return 0;
}

Result<int> export_run(const Flags& flags) {
  NIBBLE_TRY(store, gate::RunStore::open(flags.store, Database::Mode::read));
  NIBBLE_TRY(run, store.get(flags.a));
  const std::string text = run.report.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (flags.output.empty()) {
    fmt::print("{}", text);
    return 0;
  }
  NIBBLE_RETURN_IF_ERROR(write_file(flags.output, text));
  return 0;
}

}  // namespace

void add_runs(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("runs", "Runs that gate, converse and bench kept with --output FOLDER/NAME");
  command->footer(
      "FOLDER/runs.sqlite knows the runs of a folder; the files of each are beside it.\n\n"
      "  nibble gate --model DIR --output runs/today\n"
      "  nibble runs list\n"
      "  nibble runs compare yesterday today");
  command->require_subcommand(1);
  const auto add = [&](const char* name, const char* what, Result<int> (*run)(const Flags&)) {
    CLI::App* verb = command->add_subcommand(name, what);
    verb->add_option("--store", flags->store, "the folder of the runs")->capture_default_str();
    verb->callback([flags, run, &action] { action = [flags, run] { return run(*flags); }; });
    return verb;
  };
  add("list", "which runs there are, the newest first", list)->add_flag("--json", flags->json, "as JSON");
  CLI::App* one = add("show", "the gates of a run", show);
  one->add_option("RUN", flags->a, "its name")->required();
  one->add_flag("--json", flags->json, "the report as JSON");
  CLI::App* two = add("compare", "the gates of two runs", compare);
  two->add_option("A", flags->a, "a run")->required();
  two->add_option("B", flags->b, "another")->required();
  two->add_flag("--json", flags->json, "as JSON");
  CLI::App* out = add("export", "a run's report as JSON", export_run);
  out->add_option("RUN", flags->a, "its name")->required();
  out->add_option("--output", flags->output, "the file (default: print it)");
}

}  // namespace nibble::cli
