// What `nibble generate` says: previews, progress, the end of a run.
#pragma once

#include <string>

#include "base/file.h"
#include "io/json.h"
#include "synth/generate.h"

namespace nibble::cli {

/// "12,345 tokens, 0.42": the cost where there are prices.
std::string spent_text(const synth::Spent& spent);

void print_preview(const synth::Accepted& one);
Json preview_json(Json row, const synth::Accepted& one);

/// A table of the categories, the figures of the set, and what falls short.
void print_report(const synth::GenerateReport& report, const Path& output);

}  // namespace nibble::cli
