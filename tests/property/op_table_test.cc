// The table of a pass's ops on a CPU: every op is there, once for each layer that has it, and the times are the pass's.
#include "gate/op_table.h"

#include <gtest/gtest.h>

#include <map>

#include "base/clock.h"
#include "model/state.h"
#include "tests/support/models.h"

namespace nibble::test {
namespace {

using model::LayerType;
using model::PassOp;

class OpTable : public testing::Test {
 protected:
  OpTable() : model_(load(kSource / "tests/golden/micro")) {
    runner_ =
        std::move(model::BatchRunner::create(cx_, model_.weights, {.slots = 2, .capacity = 200, .prefill_rows = 64}))
            .value();
    for (int32_t i = 0; i < 100; ++i) ids_.push_back(i % 50);
  }
  // How often an op occurs in a pass through all layers.
  std::map<std::string, int64_t> counts(int64_t passes) const {
    const model::Config& c = model_.weights.config;
    const int64_t L = c.layers, attention = c.count(LayerType::full_attention), delta = L - attention;
    std::map<std::string, int64_t> counts;
    const auto put = [&](PassOp op, int64_t count) { counts[name(op)] = count; };
    put(PassOp::embed, passes);
    put(PassOp::norm, passes * (2 * L + 1));
    for (const PassOp op : {PassOp::attention_in, PassOp::attention, PassOp::attention_out})
      put(op, passes * attention);
    for (const PassOp op : {PassOp::delta_in, PassOp::delta, PassOp::delta_out}) put(op, passes * delta);
    for (const PassOp op : {PassOp::gate_up, PassOp::down}) put(op, passes * L);
    for (const PassOp op : {PassOp::head, PassOp::sampling}) put(op, 1);
    return counts;
  }
  static std::map<std::string, int64_t> counts(const gate::OpTable& table) {
    std::map<std::string, int64_t> counts;
    for (const gate::OpRow& row : table.rows) counts[row.op] = row.count;
    return counts;
  }

  ThreadPool pool_{1};
  Context cx_{pool_};
  checkpoint::LoadedModel model_;
  std::unique_ptr<model::BatchRunner> runner_;
  std::vector<int32_t> ids_;
};

TEST_F(OpTable, CoversAStep) {
  for (const int64_t sequences : {1, 2}) {
    std::vector<model::Speaker> speakers;
    for (int64_t s = 0; s < sequences; ++s) {
      ASSERT_TRUE(runner_->read(s, 0, ids_).ok());
      speakers.push_back({.slot = s, .position = 100, .id = 7});
    }
    const auto table = gate::step_ops(cx_, *runner_, model_.weights, speakers, 100, 1e4);
    ASSERT_TRUE(table.ok()) << table.status().text();
    EXPECT_EQ(counts(*table), counts(1));
    EXPECT_EQ(table->sum().bytes,
              static_cast<double>(bytes_per_token(model_.weights) +
                                  static_cast<uint64_t>(sequences) *
                                      state_bytes_per_token(model_.weights.config, 100, DType::f32)));
    EXPECT_DOUBLE_EQ(table->sum().us + table->rest_us(), 1e4);
  }
}

TEST_F(OpTable, CoversAPromptInPieces) {
  const auto table = gate::prompt_ops(cx_, *runner_, model_.weights, ids_, 3, 1e4);
  ASSERT_TRUE(table.ok()) << table.status().text();
  auto expected = counts(2);
  expected[name(PassOp::input)] = 2;
  EXPECT_EQ(counts(*table), expected);
  double products = 0;
  model_.weights.for_each_linear([&](std::string_view name, const ops::Linear& w) {
    products += 2.0 * static_cast<double>(w.out * w.in) * (name == "lm_head" ? 1 : 100);
  });
  for (const gate::OpRow& row : table->rows) {
    if (row.op == name(PassOp::attention) || row.op == name(PassOp::delta)) products += row.flops;
  }
  EXPECT_DOUBLE_EQ(table->sum().flops, products);
}

// What lies between the marks of a pass is no more than the pass took, and all but what surrounds it.
TEST_F(OpTable, LapsAddUpToThePass) {
  auto marks = std::move(Marks::create(cx_, gate::kMostMarks)).value();
  runner_->set_marks(&marks);
  const Stopwatch clock;
  ASSERT_TRUE(runner_->read(0, 0, ids_).ok());
  const double whole_us = 1e3 * clock.ms();
  const auto laps = marks.laps();
  ASSERT_TRUE(laps.ok());
  double sum = 0;
  for (const Lap& lap : *laps) {
    EXPECT_GE(lap.us, 0);
    sum += lap.us;
  }
  EXPECT_GT(sum, 0);
  EXPECT_LE(sum, whole_us);
}

TEST_F(OpTable, LeavesRepliesAsTheyAre) {
  const auto reply = [&](Marks* marks) {
    runner_->set_marks(marks);
    std::vector<int32_t> ids(5);
    EXPECT_TRUE(runner_->read(0, 0, ids_).ok());
    EXPECT_TRUE(runner_->chosen({ids.data(), 1}).ok());
    const model::Speaker speaker{.position = 100, .id = ids[0]};
    EXPECT_TRUE(runner_->set({&speaker, 1}).ok());
    for (size_t i = 1; i < ids.size(); ++i) {
      EXPECT_TRUE(runner_->step().ok());
      EXPECT_TRUE(runner_->chosen({&ids[i], 1}).ok());
    }
    return ids;
  };
  auto marks = std::move(Marks::create(cx_, gate::kMostMarks)).value();
  const auto plain = reply(nullptr);
  EXPECT_EQ(reply(&marks), plain);
  EXPECT_EQ(reply(nullptr), plain);
}

}  // namespace
}  // namespace nibble::test
