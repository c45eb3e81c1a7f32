// Public benchmarks of nibble gate: --suite, --data, --i-have-rights.
#pragma once

#include "cli/gate_run.h"

namespace nibble::cli {

void add_suite_flags(CLI::App& command, GateFlags& flags);

/// The recipe of --suite, once its licence, what was loaded and what was not have been said on standard error.
Result<gate::Recipe> suite_recipe(const GateFlags& flags);

}  // namespace nibble::cli
