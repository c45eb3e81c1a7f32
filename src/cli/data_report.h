// What was found in a data file: for `data check`, `data stats` and `train --check`.
#pragma once

#include "io/json.h"
#include "synth/data_stats.h"
#include "text/tokenizer.h"
#include "train/dataset.h"

namespace nibble::cli {

Json report_json(const train::DatasetReport& report);

/// On stdout: the bad lines, `show` samples with what is trained marked, and the figures.
void print_report(const train::Dataset& dataset, const text::Tokenizer& tokenizer, int show);

/// For `data stats`.
Json stats_json(const synth::DataStats& stats);
void print_stats(const synth::DataStats& stats);

}  // namespace nibble::cli
