#include "train/schedule.h"

#include <gtest/gtest.h>

namespace nibble::train {
namespace {

TEST(Schedule, WarmsUpLinearlyThenFollowsACosineToTheFloor) {
  const Schedule s{.lr = 2e-5f, .steps = 100};
  EXPECT_EQ(s.warmup_steps(), 5);
  EXPECT_FLOAT_EQ(s.at(0), 2e-5f / 5);
  EXPECT_FLOAT_EQ(s.at(3), 2e-5f * 4 / 5);
  EXPECT_FLOAT_EQ(s.at(4), 2e-5f);
  EXPECT_FLOAT_EQ(s.at(5), 2e-5f);
  EXPECT_FLOAT_EQ(s.at(52), 2e-5f * .55f);  // the middle of 5 … 99
  EXPECT_FLOAT_EQ(s.at(99), 2e-6f);
  EXPECT_FLOAT_EQ(s.at(1000), 2e-6f);
  for (int64_t step = 6; step < 100; ++step) EXPECT_LT(s.at(step), s.at(step - 1));
}

TEST(Schedule, WarmUpIsAShareOrACount) {
  Schedule s{.lr = 1, .steps = 30};
  EXPECT_EQ(s.warmup_steps(), 2);  // 1.5, rounded up
  s.warmup = 7;
  EXPECT_EQ(s.warmup_steps(), 7);
  s.warmup = 1;
  EXPECT_EQ(s.warmup_steps(), 1);
  s.warmup = 0;
  EXPECT_EQ(s.warmup_steps(), 0);
  EXPECT_FLOAT_EQ(s.at(0), 1);
  s.warmup = 99;
  EXPECT_EQ(s.warmup_steps(), 30);
  EXPECT_FLOAT_EQ(s.at(29), 1);
}

TEST(Schedule, ShortAndConstantRuns) {
  const Schedule one{.lr = 1, .steps = 1};
  EXPECT_FLOAT_EQ(one.at(0), 1);
  const Schedule two{.lr = 1, .steps = 2, .warmup = 0};
  EXPECT_FLOAT_EQ(two.at(0), 1);
  EXPECT_FLOAT_EQ(two.at(1), .1f);
  const Schedule constant{.lr = 1, .steps = 10, .warmup = 2, .shape = ScheduleShape::constant};
  EXPECT_FLOAT_EQ(constant.at(0), .5f);
  for (int64_t step = 1; step < 20; ++step) EXPECT_FLOAT_EQ(constant.at(step), 1);
}

TEST(Schedule, Names) {
  EXPECT_EQ(*parse_schedule_shape("cosine"), ScheduleShape::cosine);
  EXPECT_EQ(*parse_schedule_shape("constant"), ScheduleShape::constant);
  EXPECT_EQ(parse_schedule_shape("linear").status().message(), "schedule: expected cosine or constant, got \"linear\"");
}

}  // namespace
}  // namespace nibble::train
