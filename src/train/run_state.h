// What a killed run continues from, bit for bit: one folder per saved step.
//
//   OUT/checkpoints/step-N/state.json           step, cursor, hashes, running results
//   OUT/checkpoints/step-N/state.safetensors    of every trained tensor its master, low half and moments
// Frozen tensors, first codes and frozen scales come from the source again. A folder appears complete or not at all.
#pragma once

#include "base/file.h"
#include "train/batches.h"
#include "train/student.h"

namespace nibble::train {

struct RunState {
  int64_t step = 0;  // optimizer steps done
  Cursor cursor;
  std::string settings;  // hash of everything that shapes the run: options, data, source
  int64_t best_step = -1;
  double best_loss = 0;
};

Status save_state(const Path& run, const RunState& state, Student& student);

/// The newest complete state of a run, or nothing.
Result<std::optional<Path>> newest_state(const Path& run);
/// Fills the student's masters and moments; the caller refreshes. `invalid_argument` when the state belongs to other
/// settings, `corrupt` when it does not fit.
Result<RunState> load_state(const Path& folder, const std::string& settings, Student& student);
/// Removes all states but the newest `keep`.
Status prune_states(const Path& run, int keep);

}  // namespace nibble::train
