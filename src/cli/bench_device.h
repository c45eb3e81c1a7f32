// bench --device cuda.
#pragma once

#include "cli/command.h"
#include "gate/device_bench.h"

namespace nibble::cli {

struct DeviceBenchFlags {
  std::string device = "cpu";
  uint64_t memory_limit = 0;
  gate::DeviceBenchOptions options;
  bool prompts_asked = false, depths_asked = false;
};
void add_device_bench_flags(CLI::App& command, DeviceBenchFlags& flags);

/// The table of a pass, for a person; GB/s beside what a probe moved where bytes are counted.
void print_ops(const gate::OpTable& ops, const std::string& what, double probe_gb_s);

/// `what` names the model in the report.
Result<int> bench_device(const DeviceBenchFlags& flags, const checkpoint::LoadedModel& model, const std::string& what,
                         ThreadPool& pool, bool json);

}  // namespace nibble::cli
