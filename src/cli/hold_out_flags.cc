#include "cli/hold_out_flags.h"

#include <fmt/format.h>

#include "cli/terminal.h"
#include "synth/recipe.h"

namespace nibble::cli {

void add_hold_out_flags(CLI::App& command, HoldOutFlags& flags, bool with_recipe) {
  command.add_option("--holdout", flags.gates,
                     "gate recipe or file of cases (*.jsonl): what their users say must not be in the data");
  if (with_recipe) {
    command.add_option("--recipe", flags.recipe, "recipe of nibble generate: its hold-out key and its gates");
  }
}

Result<HoldOutReport> look_for_held_out(const Path& file, const HoldOutFlags& flags, size_t most) {
  HoldOutReport report;
  report.refuses = flags.given();
  report.gates = flags.gates;
  if (!flags.recipe.empty()) {
    NIBBLE_TRY(recipe, synth::load_recipe(flags.recipe));
    report.pairs = recipe.hold_out.pairs;
    report.gates.insert(report.gates.end(), recipe.hold_out.gates.begin(), recipe.hold_out.gates.end());
  } else if (!flags.given()) {
    report.gates = {"companion", "converse"};
  }
  synth::HoldOut hold_out;
  for (const std::string& name : report.gates) NIBBLE_RETURN_IF_ERROR(hold_out.add_cases(name));
  report.texts = hold_out.size();
  ProgressBar bar("hold-out", true);
  NIBBLE_TRY(found, synth::find_overlaps(file, hold_out, report.pairs, most, bar.callback()));
  report.overlaps = std::move(found);
  return report;
}

Status refuse_held_out(const Path& file, const HoldOutFlags& flags) {
  if (!flags.given()) return {};
  NIBBLE_TRY(report, look_for_held_out(file, flags, 1));
  if (report.errors() == 0) return {};
  const std::vector<std::string>& shown = report.pairs ? report.overlaps.shown_pairs : report.overlaps.shown;
  return invalid_argument("expected nothing that is held out, got {} records: {}", report.errors(),
                          shown.empty() ? file.string() : shown.front())
      .with_hint("nibble data check names them");
}

Json hold_out_json(const HoldOutReport& report) {
  return {{"key", report.pairs ? "pairs" : "user_text"},
          {"gates", report.gates},
          {"records", report.overlaps.records},
          {"shown", report.overlaps.shown},
          {"pair_records", report.overlaps.pair_records},
          {"shown_pairs", report.overlaps.shown_pairs},
          {"errors", report.errors()}};
}

void print_hold_out(const HoldOutReport& report) {
  fmt::print("\nheld out: {} texts of {}; {} records have one of them{}\n", report.texts, fmt::join(report.gates, ", "),
             report.overlaps.records, report.refuses && !report.pairs ? "" : ", which is no error here");
  if (report.refuses && !report.pairs) {
    for (const std::string& one : report.overlaps.shown) fmt::print("  {}\n", printable(one));
  }
  if (!report.pairs) return;
  fmt::print("held out: one pair of entities in ten; {} records have one\n", report.overlaps.pair_records);
  for (const std::string& one : report.overlaps.shown_pairs) fmt::print("  {}\n", printable(one));
}

}  // namespace nibble::cli
