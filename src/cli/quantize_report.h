// What nibble quantize prints: the plan before, the report after, as tables or JSON.
#pragma once

#include "cli/quantize_flags.h"

namespace nibble::cli {

Json plan_json(const quantize::Plan& plan);
void print_plan(const quantize::Plan& plan);

Json report_json(const quantize::QuantizeReport& report, const QuantizeFlags& flags);
void print_report(const quantize::QuantizeReport& report, const QuantizeFlags& flags);

}  // namespace nibble::cli
