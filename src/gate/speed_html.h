// The page of a speed run: what it comes down to, plots, and every table. In the form of the gate's report: one file
// that makes no request, light or dark as the reader's system is.
#pragma once

#include "gate/speed_report.h"

namespace nibble::gate {

/// The numbers are those of to_json(report), which is in the page as <script id="report">.
Status write_speed_html(const Path& file, const SpeedReport& report);

}  // namespace nibble::gate
