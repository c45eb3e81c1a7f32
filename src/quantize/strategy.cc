#include "quantize/strategy.h"

#include <string>

#include "ops/quant/nvfp4.h"

namespace nibble::quantize {
namespace {

constexpr Strategy kStrategies[] = {
    {"max", kNvfp4Range, ops::nvfp4_scales_max},
    {"four_over_six", kNvfp4RangeFourOverSix, ops::nvfp4_scales_four_over_six},
    {"mse", kNvfp4Range, ops::nvfp4_scales_mse},
};

}  // namespace

Result<Strategy> find_strategy(std::string_view name) {
  std::string known;
  for (const Strategy& strategy : kStrategies) {
    if (strategy.name == name) return strategy;
    known += known.empty() ? "" : ", ";
    known += strategy.name;
  }
  return invalid_argument("strategy: expected one of {}, got \"{}\"", known, name);
}

Strategy data_free_strategy(Scales scales) {
  return *find_strategy(scales == Scales::max ? "max" : scales == Scales::four_over_six ? "four_over_six" : "mse");
}

}  // namespace nibble::quantize
