#include "gate/device_bench.h"

#include <gtest/gtest.h>

namespace nibble::gate {
namespace {

// 65 tokens are spoken six times behind each length.
TEST(DeviceBench, LengthsThatNobodyAskedForFitTheModel) {
  const DeviceBenchOptions all;
  model::Config config;
  config.max_positions = 262144;
  EXPECT_EQ(fitting(all, config, false, false).depths, all.depths);
  config.max_positions = 2048 + 390;
  const DeviceBenchOptions fit = fitting(all, config, false, false);
  EXPECT_EQ(fit.prompts, (std::vector<int64_t>{128, 512, 2048}));
  EXPECT_EQ(fit.depths, (std::vector<int64_t>{128, 2048}));
  EXPECT_EQ(fit.batch_depth, 2048);
  config.max_positions = 2048 + 389;
  EXPECT_EQ(fitting(all, config, false, false).prompts, (std::vector<int64_t>{128, 512}));
  EXPECT_EQ(fitting(all, config, false, false).batch_depth, 2047);
  EXPECT_EQ(fitting(all, config, true, true).prompts, all.prompts);
  EXPECT_EQ(fitting(all, config, true, true).depths, all.depths);
}

}  // namespace
}  // namespace nibble::gate
