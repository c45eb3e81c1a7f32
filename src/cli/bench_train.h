// nibble bench --train: the part of the command that measures training.
#pragma once

#include "cli/command.h"
#include "gate/train_bench.h"

namespace nibble::cli {

struct TrainBenchFlags {
  bool train = false;
  Path teacher;
  gate::TrainBenchOptions options;
};

void add_train_bench_flags(CLI::App& command, TrainBenchFlags& flags);

/// sft, qat and, with a teacher, qad of the model in `dir`, one after the other.
Result<int> bench_train(const Path& dir, const Path& adapter, const TrainBenchFlags& flags, int threads, bool json);

}  // namespace nibble::cli
