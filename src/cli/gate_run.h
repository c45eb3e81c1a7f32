// What nibble gate and nibble converse share: a recipe, one server or two, a folder with the results.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/local_server.h"
#include "gate/recipe.h"
#include "gate/runner.h"

namespace nibble::cli {

/// A public benchmark (gate/suite.h) instead of a recipe.
struct SuiteFlags {
  std::string name;
  Path folder;
  bool has_rights = false;
};

struct GateFlags {
  std::string command;  // "gate" or "converse"
  ServerFlags server;
  SuiteFlags suite;
  std::string against;  // a URL, or a checkpoint folder or GGUF file
  ServerFlags judge;    // a model that gives its opinion
  Path cases, output, hardened_file, baseline, save_baseline, suppressions;
  std::vector<Path> merge;  // folders of shards
  std::string shard;        // "2/4"
  std::string hardware;     // what the server runs on; empty: as it says
  std::string recipe, default_recipe, thinking;
  std::vector<std::string> only;
  gate::PlayOptions play;
  gate::RunOptions run;
  gate::ReportOptions report;
  size_t limit = 0, sample = 0;
  int64_t sessions = 0, messages = 0;  // of converse: repeats until both are reached
  int max_tokens = 0, jobs = 0;
  bool hardened = false, fail_on_regression = false, quick = false, explain = false, json = false;
};

/// The recipe with its cases, as the flags cut it.
Result<gate::Recipe> chosen_recipe(const GateFlags& flags);

/// Plays, prints and writes; the exit code of the command.
Result<int> run_gate_command(GateFlags flags);

/// The flags that both commands have.
void add_play_flags(CLI::App& command, GateFlags& flags);

}  // namespace nibble::cli
