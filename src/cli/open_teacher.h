// The teacher of `nibble train`: a model in memory, or a file of its hidden states.
#pragma once

#include "cli/command.h"
#include "cli/data_flags.h"
#include "train/teacher.h"

namespace nibble::cli {

struct TeacherRequest {
  const Path &dir, &sidecar;  // no sidecar: the model itself
  const Path& tokenizer;      // the folder whose tokenizer made the ids
  const DataFlags& flags;     // how conversations became samples
  const train::Dataset &data, &valid;
  train::Objective objective;
  int64_t vocab;  // of the student
};

struct OpenTeacher {
  std::unique_ptr<checkpoint::LoadedModel> model;
  std::unique_ptr<train::Teacher> teacher;
};

/// Where a sidecar is named and is not there, it is written first, with a progress bar; where it is there, it must hold
/// every sample. Either way the model's blocks are not kept in memory.
Result<OpenTeacher> open_teacher(Context& cx, const TeacherRequest& request);

}  // namespace nibble::cli
