#include "train/memory_plan.h"

#include <gtest/gtest.h>

namespace nibble::train {
namespace {

using ops::MomentFormat;

const PlannedModel& nine_b() {
  static const PlannedModel model{*model::builtin_config("9b")};
  return model;
}

double gb(uint64_t bytes) {
  return static_cast<double>(bytes) * 1e-9;
}

uint64_t item(const MemoryPlan& plan, std::string_view what) {
  for (const PlanItem& item : plan.items) {
    if (item.what == what) return item.bytes;
  }
  return 0;
}

TEST(MemoryPlan, ParametersOfThe9B) {
  const ParameterCounts n = count_parameters(nine_b());
  EXPECT_EQ(n.quantizable, 6'912'212'992);
  EXPECT_NEAR(static_cast<double>(n.gates), 6.29e6, .01e6);
  EXPECT_NEAR(static_cast<double>(n.vectors), .786e6, .003e6);
  EXPECT_NEAR(static_cast<double>(n.embedding), 1.0171e9, .0001e9);
  EXPECT_EQ(n.head, n.embedding);
  EXPECT_NEAR(static_cast<double>(n.total()), 8.9538e9, .0002e9);
  EXPECT_EQ(n.largest, 4096 * 12288);
  PlannedModel tied = nine_b();
  tied.tied = true;
  EXPECT_EQ(count_parameters(tied).head, 0);
}

// The published figures for a split master with f32 gradients, in GB: everything trained, and with embedding and head
// frozen.
TEST(MemoryPlan, StateOfThe9BWithinTwoPerMille) {
  struct Row {
    MomentFormat moments;
    double all, blocks;
  };
  for (const Row& row : {Row{MomentFormat::bf16, 107.4, 87.0}, Row{MomentFormat::q8, 89.8, 73.4}}) {
    PlanOptions o;
    o.student.moments = row.moments;
    EXPECT_NEAR(gb(plan_memory(nine_b(), o).state_bytes) / row.all, 1, .002);
    o.student.trainable = Trainable::linears_and_norms;
    EXPECT_NEAR(gb(plan_memory(nine_b(), o).state_bytes) / row.blocks, 1, .002);
  }
}

TEST(MemoryPlan, AResidentTeacherCostsItsWeights) {
  PlanOptions o;
  o.student.trainable = Trainable::linears;
  const uint64_t alone = plan_memory(nine_b(), o).total(), frozen = item(plan_memory(nine_b(), o), "frozen weights");
  EXPECT_NEAR(gb(frozen), 4.08, .02);
  o.teacher = nine_b();
  const MemoryPlan other = plan_memory(nine_b(), o);
  EXPECT_NEAR(gb(item(other, "teacher")), 17.9, .05);
  o.teacher_is_source = true;
  const MemoryPlan same = plan_memory(nine_b(), o);
  EXPECT_EQ(other.total() - same.total(), frozen);
  EXPECT_NEAR(gb(same.total() - alone), 13.8, .5);  // and its sequence state and logits
}

TEST(MemoryPlan, ATeacherInAFileCostsItsHead) {
  constexpr uint64_t kGigabyte = 1'000'000'000;
  PlanOptions o;
  o.student.trainable = Trainable::linears;
  o.teacher = nine_b();
  const uint64_t resident = plan_memory(nine_b(), o).total();
  const Status status = fits(nine_b(), o, resident - 10 * kGigabyte);
  EXPECT_EQ(status.hint().substr(0, 14), "--sidecar FILE") << status.hint();
  o.teacher_is_file = true;
  const MemoryPlan file = plan_memory(nine_b(), o);
  EXPECT_NEAR(gb(item(file, "teacher")), 2.03, .01);
  EXPECT_GT(gb(resident - file.total()), 15.8);  // the blocks, the embedding, and the states of its sequences
  o.teacher_is_source = true;                    // the student's frozen tensors are in memory whoever reads them
  EXPECT_EQ(plan_memory(nine_b(), o).total(), file.total());
}

TEST(MemoryPlan, TracesGrowWithLayersAndTokens) {
  PlanOptions o;
  const MemoryPlan again = plan_memory(nine_b(), o);
  EXPECT_NEAR(gb(item(again, "activations kept")), 34 * 2048. * 4096 * 4 * 1e-9, .01);
  o.keep_traces = true;
  const MemoryPlan kept = plan_memory(nine_b(), o);
  EXPECT_GT(kept.work_bytes, 8 * again.work_bytes);
  o.batch = {4096, 2048, 2};
  EXPECT_NEAR(static_cast<double>(item(plan_memory(nine_b(), o), "activations kept")),
              2. * static_cast<double>(item(kept, "activations kept")), 1);
}

TEST(MemoryPlan, TextListsEveryItem) {
  const MemoryPlan plan = plan_memory(nine_b(), {});
  const std::string text = plan.text();
  for (const PlanItem& item : plan.items) EXPECT_NE(text.find(item.what), std::string::npos);
  EXPECT_EQ(text.find("teacher"), std::string::npos);
  EXPECT_NE(text.find("total"), std::string::npos);
}

TEST(MemoryPlan, APlanThatDoesNotFitNamesTheFlagsThatDo) {
  const uint64_t gigabyte = 1'000'000'000;
  EXPECT_EQ(usable_memory(10 * gigabyte), 9 * gigabyte);
  PlanOptions o;
  o.batch = {16384, 2048, 8};
  o.keep_traces = true;
  EXPECT_TRUE(fits(nine_b(), o, 500 * gigabyte).ok());
  const Status status = fits(nine_b(), o, 160 * gigabyte);
  EXPECT_EQ(status.code(), Code::out_of_memory);
  EXPECT_NE(status.message().find("160.00 GB"), std::string::npos) << status.message();
  EXPECT_EQ(status.hint().substr(0, 21), "without --keep-traces") << status.hint();
  EXPECT_NE(fits(nine_b(), o, 110 * gigabyte).hint().find("--moments q8"), std::string::npos);
  EXPECT_NE(fits(nine_b(), o, 8 * gigabyte).hint().find("even"), std::string::npos);
}

}  // namespace
}  // namespace nibble::train
