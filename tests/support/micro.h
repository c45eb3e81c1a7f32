// The micro models of the goldens as a training run: what they were trained with, by the mode in a file's name.
#pragma once

#include "tests/support/golden.h"
#include "tests/support/models.h"
#include "train/step.h"

namespace nibble::test {

inline train::StudentOptions micro_options(const std::string& mode, const Golden& golden) {
  train::StudentOptions options;
  options.quantize = mode != "f32";
  options.tie_groups = mode.ends_with("tied");
  if (mode == "w4a4_tied") {
    golden.for_each_input_amax([&](const std::string& module, float amax) { options.input_amax[module] = amax; });
  }
  return options;
}

/// Two sequences of 75 tokens, 87 rows with a loss.
inline train::Batch micro_batch(const Golden& golden) {
  const auto ids = golden.ids("input_ids"), labels = golden.ids("labels");
  const int64_t B = 2, T = 75;
  train::Batch batch;
  batch.ids.assign(ids.begin(), ids.end());
  batch.segments = {0, T, 2 * T};
  batch.labels.assign(static_cast<size_t>(B * T), -1);
  batch.ce.assign(batch.labels.size(), 0);
  batch.kl.assign(batch.labels.size(), 0);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t t = 0; t + 1 < T; ++t) {
      const auto row = static_cast<size_t>(b * T + t);
      if (labels[row + 1] == -100) continue;
      batch.labels[row] = labels[row + 1];
      batch.ce[row] = 1;
      ++batch.ce_rows;
      batch.ce_weight += 1;
    }
  }
  return batch;
}

}  // namespace nibble::test
