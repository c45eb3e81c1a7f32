#include "train/memory_plan.h"

#include <gtest/gtest.h>

namespace nibble::train {
namespace {

using ops::MasterFormat;
using ops::MomentFormat;

const model::Config& nine_b() {
  static const model::Config config = *model::builtin_config("9b");
  return config;
}

double gb(uint64_t bytes) {
  return static_cast<double>(bytes) * 1e-9;
}

TEST(MemoryPlan, ParametersOfThe9B) {
  const ParameterCounts n = count_parameters(nine_b(), false);
  EXPECT_NEAR(static_cast<double>(n.mlp), 32 * 151.0e6, 32 * .05e6);
  EXPECT_NEAR(static_cast<double>(n.attention), 8 * 58.7e6, 8 * .05e6);
  EXPECT_NEAR(static_cast<double>(n.delta), 24 * 67.1e6, 24 * .05e6);
  EXPECT_NEAR(static_cast<double>(n.quantizable()), 6.9122e9, .0001e9);
  EXPECT_NEAR(static_cast<double>(n.embedding), 1.0171e9, .0001e9);
  EXPECT_NEAR(static_cast<double>(n.total()), 8.9538e9, .0002e9);
  EXPECT_EQ(count_parameters(nine_b(), true).head, 0);
}

// The published table: sequence 2048, micro-batch 1, GB.
TEST(MemoryPlan, TableOfThe9BWithinOnePercent) {
  struct Row {
    const char* choice;
    MasterFormat master;
    bool copy;
    MomentFormat moments;
    DType gradient;
    double state, recompute, none, teacher;
  };
  const Row rows[] = {
      {"A", MasterFormat::f32, true, MomentFormat::f32, DType::f32, 161.2, 164.6, 173.3, 182.5},
      {"B", MasterFormat::split, false, MomentFormat::f32, DType::bf16, 125.4, 128.8, 137.5, 146.7},
      {"C", MasterFormat::split, false, MomentFormat::bf16, DType::f32, 107.4, 110.9, 119.5, 128.8},
      {"D", MasterFormat::split, false, MomentFormat::bf16, DType::bf16, 89.5, 93.0, 101.6, 110.9},
      {"E", MasterFormat::split, false, MomentFormat::q8, DType::f32, 89.8, 93.2, 101.9, 111.2},
      {"F", MasterFormat::split, false, MomentFormat::q8, DType::bf16, 71.9, 75.3, 84.0, 93.2},
      {"G", MasterFormat::bf16, false, MomentFormat::bf16, DType::bf16, 71.6, 75.1, 83.7, 93.0},
      {"H", MasterFormat::bf16, false, MomentFormat::q8, DType::bf16, 54.0, 57.4, 66.1, 75.3},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.choice);
    PlanOptions o{.master = row.master, .bf16_copy = row.copy, .moments = row.moments, .gradient = row.gradient};
    const MemoryPlan plan = plan_memory(nine_b(), false, o);
    EXPECT_NEAR(gb(plan.state_bytes) / row.state, 1, .0015);
    EXPECT_NEAR(gb(plan.total()) / row.recompute, 1, .01);
    o.recompute = Recompute::none;
    EXPECT_NEAR(gb(plan_memory(nine_b(), false, o).total()) / row.none, 1, .01);
    o.recompute = Recompute::all;
    o.teacher = TeacherSource::resident;
    EXPECT_NEAR(gb(plan_memory(nine_b(), false, o).total()) / row.teacher, 1, .01);
  }
}

TEST(MemoryPlan, FrozenWeightsCachesAndTeachers) {
  PlanOptions o{.trainable = TrainedParts::blocks};
  EXPECT_NEAR(gb(plan_memory(nine_b(), false, o).state_bytes), 59.6, .2);
  const uint64_t before = plan_memory(nine_b(), false, o).total();
  o.teacher = TeacherSource::resident;
  EXPECT_NEAR(gb(plan_memory(nine_b(), false, o).total() - before), 13.8, .1);
  o.share_frozen = false;
  EXPECT_NEAR(gb(plan_memory(nine_b(), false, o).total() - before), 17.9, .1);
  o.teacher = TeacherSource::sidecar;
  EXPECT_EQ(plan_memory(nine_b(), false, o).total(), before);
  o.cache = FakeQuantCache::bf16;
  EXPECT_NEAR(gb(plan_memory(nine_b(), false, o).total() - before), 13.82, .01);
  o.cache = FakeQuantCache::packed;  // and two linears of scratch
  EXPECT_NEAR(gb(plan_memory(nine_b(), false, o).total() - before), 3.89 + .2, .01);
  EXPECT_LT(plan_memory(nine_b(), false, {.recompute = Recompute::mlp}).total(),
            plan_memory(nine_b(), false, {.recompute = Recompute::none}).total());
}

TEST(MemoryPlan, TextListsEveryItem) {
  const MemoryPlan plan = plan_memory(nine_b(), false, {});
  const std::string text = plan.text();
  for (const PlanItem& item : plan.items) EXPECT_NE(text.find(item.what), std::string::npos);
  EXPECT_EQ(text.find("teacher"), std::string::npos);
  EXPECT_NE(text.find("total"), std::string::npos);
}

TEST(MemoryPlan, APlanThatDoesNotFitNamesTheChoiceThatDoes) {
  const uint64_t gigabyte = 1'000'000'000;
  EXPECT_TRUE(fits(nine_b(), false, {}, 80 * gigabyte).ok());
  const PlanOptions large{
      .moments = MomentFormat::f32, .recompute = Recompute::none, .teacher = TeacherSource::resident};
  const Status status = fits(nine_b(), false, large, 132 * gigabyte);
  EXPECT_EQ(status.code(), Code::out_of_memory);
  EXPECT_NE(status.message().find("132.00 GB"), std::string::npos) << status.message();
  EXPECT_EQ(status.hint().substr(0, 44), "a teacher from a sidecar file, recompute all") << status.hint();
  EXPECT_NE(fits(nine_b(), false, {}, 8 * gigabyte).hint().find("even"), std::string::npos);
}

}  // namespace
}  // namespace nibble::train
