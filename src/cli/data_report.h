// What checking a data file found: for `data check` and `train --check`.
#pragma once

#include "io/json.h"
#include "text/tokenizer.h"
#include "train/dataset.h"

namespace nibble::cli {

Json report_json(const train::DatasetReport& report);

/// On stdout: the bad lines, `show` samples with what is trained marked, and the figures.
void print_report(const train::Dataset& dataset, const text::Tokenizer& tokenizer, int show);

}  // namespace nibble::cli
