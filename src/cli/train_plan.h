// The memory plan of a run: for this machine, or with --memory for another.
#pragma once

#include <optional>

#include "cli/train_flags.h"
#include "train/memory_plan.h"

namespace nibble::cli {

struct RunPlan {
  train::MemoryPlan memory;
  bool keep_traces = false;            // as asked for; else where the whole then takes half of what is free at most
  std::optional<uint64_t> free_bytes;  // absent where the machine does not say
  Status verdict;                      // ok, or out_of_memory with a hint

  std::string text() const;
  Json json() const;
};

/// Of a folder, from its config.json alone, or of a released size by name: "9b".
Result<train::PlannedModel> planned_model(const Path& dir);

/// `batch` is that of the data. With a KL loss and no --teacher the teacher is the model itself.
Result<RunPlan> make_plan(const TrainFlags& flags, const train::PlannedModel& model, const train::BatchExtent& batch,
                          int threads);

}  // namespace nibble::cli
