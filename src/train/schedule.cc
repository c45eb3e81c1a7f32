#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nibble::train {

Result<ScheduleShape> parse_schedule_shape(std::string_view word) {
  for (const ScheduleShape shape : {ScheduleShape::cosine, ScheduleShape::constant}) {
    if (word == name(shape)) return shape;
  }
  return invalid_argument("schedule: expected cosine or constant, got \"{}\"", word);
}

int64_t Schedule::warmup_steps() const {
  const double count = warmup < 1 ? std::ceil(warmup * static_cast<double>(steps)) : warmup;
  return std::clamp<int64_t>(static_cast<int64_t>(count), 0, steps);
}

float Schedule::at(int64_t step) const {
  const int64_t before = warmup_steps(), after = steps - before;
  if (step < before) return static_cast<float>(lr * static_cast<double>(step + 1) / static_cast<double>(before));
  if (shape == ScheduleShape::constant) return lr;
  const int64_t last = std::max<int64_t>(after - 1, 1);
  const double t = static_cast<double>(std::min(step - before, last)) / static_cast<double>(last);
  return static_cast<float>(lr * (floor + (1 - floor) * (1 + std::cos(std::numbers::pi * t)) / 2));
}

}  // namespace nibble::train
