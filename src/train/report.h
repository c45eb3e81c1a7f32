// The report of a run: one HTML page that holds everything it shows (no scripts, no fonts, no requests), light or dark
// as the reader's system is.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "train/metrics.h"

namespace nibble::train {

using ReportRows = std::vector<std::pair<std::string, std::string>>;  // name, value

struct Report {
  std::string title;
  ReportRows settings;  // as the caller wants them read: model, mode, data, optimizer, …
  ReportRows results;   // beside what the metrics give, e.g. where the export lies
  RunMetrics metrics;
};

/// The page: results (last and best losses, steps, tokens, speed, then `results`), settings, and curves of loss,
/// validation, learning rate, gradient norm, speed and flips. Curves without a measured point are left out. All text is
/// escaped. XML as well as HTML.
std::string to_html(const Report& report);

}  // namespace nibble::train
