// The flags of nibble quantize, and what they amount to.
#pragma once

#include "cli/command.h"
#include "quantize/quantize.h"

namespace nibble::cli {

struct QuantizeFlags {
  Path dir, adapter, output, calib, holdout;
  std::string strategy, recipe, format = "modelopt", inputs, target, sensitivity = "kl", speed;
  int64_t samples = 512;
  quantize::Budget budget;
  int threads = 0;
  bool plan = false, json = false;
  quantize::QuantizeOptions options;  // complete after complete()

  /// Some linears get static input scales.
  bool rounds_inputs() const;
};

void add_quantize_flags(CLI::App& command, QuantizeFlags& flags);

/// Looks the recipe up and fills `options`. `invalid_argument` where flags contradict each other or the recipe.
Status complete(QuantizeFlags& flags);

/// What the bytes of the output depend on beside options: the texts of calibration and the adapter.
Result<std::string> other_inputs(const QuantizeFlags& flags);

}  // namespace nibble::cli
