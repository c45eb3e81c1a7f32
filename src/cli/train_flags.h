// The flags of nibble train, what stands for those that were not given, and what a run records of them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/file.h"
#include "cli/data_flags.h"
#include "cli/hold_out_flags.h"
#include "io/json.h"
#include "train/trainer.h"

namespace nibble::cli {

struct TrainFlags {
  Path dir, adapter, train, valid, teacher, sidecar, output, calib;
  std::string mode = "qad", scales = "dynamic", trainable, schedule = "cosine", moments = "f32", recipe;
  DataFlags data;
  HoldOutFlags hold_out;
  train::StudentOptions student;
  train::TrainerOptions trainer;
  int64_t samples = 512, limit = 0, valid_limit = 64;
  double lr = -1, kl = -1;
  uint64_t seed = 0;
  int threads = 0;
  int traces = 0;        // above 0: kept; below: computed again; 0: as the memory allows
  double memory_gb = 0;  // 0: what is free here
  bool loss_rows_given = false, plan = false, check = false, json = false;
};

/// Registers all of them and the help below them. `flags` must outlive the parse.
void add_train_flags(CLI::App& command, TrainFlags& flags);

/// Gives the values of --recipe, if any, to the flags of `command` that were not given. Before complete().
Status use_recipe(CLI::App& command, TrainFlags& flags);

/// Fills in the defaults of the mode and the options of student and trainer. `invalid_argument` for flags that do not
/// go together.
Status complete(TrainFlags& flags);

/// Everything that a resumed run must have in common with the one it continues.
Json settings_of(const TrainFlags& flags, const std::string& model_fingerprint, const train::Dataset& data);

}  // namespace nibble::cli
