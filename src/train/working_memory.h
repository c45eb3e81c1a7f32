// What one micro-batch takes beside the model: an upper bound that follows the calls of LossPass.
#pragma once

#include "train/memory_plan.h"

namespace nibble::train {

struct WorkingMemory {
  uint64_t states = 0;  // of the sequences, student's and teacher's
  uint64_t kept = 0;    // between forward and backward
  uint64_t peak = 0;    // the most that a block, the head or a refresh takes beside that, for the moment
};

WorkingMemory working_memory(const PlannedModel& model, const PlanOptions& options);

}  // namespace nibble::train
