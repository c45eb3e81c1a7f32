#include "cli/gate_suite.h"

#include "gate/suite.h"

namespace nibble::cli {

void add_suite_flags(CLI::App& command, GateFlags& flags) {
  CLI::Option* suite = command.add_option(
      "--suite", flags.suite.name,
      fmt::format("a public benchmark instead of a recipe: {}", fmt::join(gate::suite_names(), ", ")));
  command.add_option("--data", flags.suite.folder, "with --suite: the folder of its files, as they are published")
      ->needs(suite);
  command.add_flag("--i-have-rights", flags.suite.has_rights, "play a suite whose folder has no licence file")
      ->needs(suite);
}

Result<gate::Recipe> suite_recipe(const GateFlags& flags) {
  const SuiteFlags& suite = flags.suite;
  if (suite.folder.empty()) {
    return invalid_argument("{}: expected the folder of {}, got none", flags.command, suite.name)
        .with_hint("--data DIR names it");
  }
  if (!flags.recipe.empty() || !flags.cases.empty()) {
    return invalid_argument("{}: expected --suite or {}, got both", flags.command,
                            flags.recipe.empty() ? "--cases" : "--recipe");
  }
  NIBBLE_TRY(loaded, gate::load_suite(suite.name, suite.folder, suite.has_rights));
  for (const std::string& line : loaded.about) fmt::print(stderr, "{}\n", line);
  return std::move(loaded.recipe);
}

}  // namespace nibble::cli
