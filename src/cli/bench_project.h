// bench --project: what bytes and instructions say about a machine that is not here.
#pragma once

#include "cli/command.h"
#include "gate/projection.h"

namespace nibble::cli {

struct ProjectBenchFlags {
  std::string machine;
  double share = 0;  // 0: not given
  Path measured;
  bool wanted() const { return !machine.empty(); }
};
void add_project_bench_flags(CLI::App& command, ProjectBenchFlags& flags);

/// `what` names the model in the report.
Result<int> bench_project(const ProjectBenchFlags& flags, gate::ProjectionOptions options,
                          const checkpoint::LoadedModel& model, const std::string& what, bool json);

}  // namespace nibble::cli
