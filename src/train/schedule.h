// Schedule: the learning rate of every optimizer step, a pure function of the step.
//   warm-up    step < warmup           lr (step + 1) / warmup
//   cosine     t in [0, 1] over the remaining steps, from lr at the first to floor lr at the last:
//              lr (floor + (1 - floor) (1 + cos(pi t)) / 2)
//   constant   lr
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace nibble::train {

enum class ScheduleShape : uint8_t { cosine, constant };

/// "cosine" or "constant"; `invalid_argument` otherwise.
Result<ScheduleShape> parse_schedule_shape(std::string_view word);
constexpr const char* name(ScheduleShape shape) {
  return shape == ScheduleShape::cosine ? "cosine" : "constant";
}

struct Schedule {
  float lr = 0;
  int64_t steps = 0;    // of the whole run, resumed or not
  double warmup = .05;  // below 1: a share of the steps, rounded up; from 1 on: a number of steps
  float floor = .1f;    // share of lr at the last step of a cosine
  ScheduleShape shape = ScheduleShape::cosine;

  int64_t warmup_steps() const;  // at most `steps`
  /// step = 0 … steps - 1; beyond them the last rate stays.
  float at(int64_t step) const;
};

}  // namespace nibble::train
