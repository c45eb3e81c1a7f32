// What can be said of a run before it: --plan and --check.
#pragma once

#include "cli/train_flags.h"
#include "train/dataset.h"

namespace nibble::cli {

/// The largest micro-batch of both; evaluation cuts its batches by the same limits.
train::BatchExtent largest_batch(const TrainFlags& flags, const train::Dataset& data, const train::Dataset& valid);

/// Prints the memory plan, with --check after the reports of the data, and needs no weights for either. 2 where a line
/// of the data is bad or nothing is left to train on; the verdict of the plan where it does not fit.
Result<int> preflight(const TrainFlags& flags);

}  // namespace nibble::cli
