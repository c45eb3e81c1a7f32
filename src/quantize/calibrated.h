// Quantization with a look at data: calibrates, weighs formats against a budget, solves layer by layer, and writes the
// folder. Every step leaves its result in the unfinished output, so that an interrupted run goes on where it stood.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/weights.h"
#include "quantize/budget.h"
#include "quantize/quantize.h"

namespace nibble::quantize {

struct CalibratedOptions {
  QuantizeOptions quantize;  // `solved` and `replace` are set here; a `replace` that is given stands behind
  Budget budget;             // or recipe.effective_bits; none: formats are those of the rules
  Sensitivity sensitivity = Sensitivity::kl;
  int64_t sensitivity_chats = 16;  // by KL: that many of the calibration set; every group costs them a forward
  /// Asked for the progress of each stage by its name: "calibrate", "sensitivity", "solve", "write".
  std::function<Progress(std::string_view stage)> progress;
};

struct CalibratedReport {
  QuantizeReport report;
  std::optional<MixedChoice> mixed;
  std::map<std::string, FormatChoice> formats;  // PlanOptions::formats that followed from it
  std::map<std::string, double> losses;         // by module, see SolvedModule
  std::map<std::string, std::string> notes;     // by module
  int64_t tokens = 0;                           // of the calibration set
  double seconds = 0;
};

/// Whether a recipe or a budget needs calibration data.
bool needs_data(const Recipe& recipe, const Budget& budget);

/// `weights` are those of `source`, with what options.quantize.replace stands for merged in; their pages are given back
/// on the way; the caller commits `output`. Errors as quantize_folder; `cancelled` keeps what is there for the next
/// run.
Result<CalibratedReport> quantize_with_data(Context& cx, const Path& source, PartialFolder& output,
                                            model::Weights& weights, std::span<const std::vector<int32_t>> chats,
                                            const CalibratedOptions& options);

}  // namespace nibble::quantize
