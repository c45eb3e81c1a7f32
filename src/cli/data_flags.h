// The flags that say how conversations become samples: the same words for checking data and for training on it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "train/dataset.h"

namespace nibble::cli {

struct DataFlags {
  train::DatasetOptions options;
  std::string loss_rows = "assistant", loss_kinds = "think,content,tool_call,eos", think_prefix = "prompt";
  std::string thinking = "off", overflow = "drop", expand_turns = "as-needed";
  bool keep_duplicates = false;
};

/// `flags` must outlive the parse.
void add_data_flags(CLI::App& command, DataFlags& flags);

Result<train::DatasetOptions> dataset_options(const DataFlags& flags);

}  // namespace nibble::cli
