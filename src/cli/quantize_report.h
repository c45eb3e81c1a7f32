// What nibble quantize prints: the plan before, the report after, as tables or JSON.
#pragma once

#include "cli/quantize_flags.h"
#include "gate/divergence.h"
#include "quantize/calibrated.h"

namespace nibble::cli {

Json plan_json(const quantize::Plan& plan);
void print_plan(const quantize::Plan& plan);

/// What a run made, and how far it is from its source where that was measured.
struct QuantizeResult {
  quantize::CalibratedReport made;
  std::optional<quantize::Job> job;  // what was followed
  std::optional<gate::Divergence> divergence;
  double bytes_per_second_here = 0;
};

/// Without paths and times: the same job gives the same document.
Json report_json(const QuantizeResult& result, const QuantizeFlags& flags);
void print_report(const QuantizeResult& result, const QuantizeFlags& flags);

/// The document of report_json as a page with plots: error by layer and, after a search over formats, what was given up
/// at which number of bits.
std::string report_html(const Json& report);

}  // namespace nibble::cli
