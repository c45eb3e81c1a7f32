// Training on the two random micro models against torch: the loss, every gradient tensor and ten steps of AdamW, in f32
// and under NVFP4 fake quantization with straight-through gradients.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/micro.h"

namespace nibble::test {
namespace {

struct Mode {
  const char* name;
  double gradient;  // relative L2 per tensor
};
const Mode kModes[] = {{"f32", 5e-4}, {"w4a16", 5e-4}, {"w4a16_tied", 5e-4}, {"w4a4_tied", 5e-5}};

// |loss - golden| before the updates 1, 2, …; the last entry holds for all that follow. Later losses are chaotic: a
// change of the weights by one part in 1e7 moves them by as much.
const std::vector<double> kExactLadder = {1e-5, 3e-4, 1e-3, 2e-3, 2e-2, 3e-2, .15};
const std::vector<double> kQuantizedLadder = {1e-5, 1e-2, .3};

double relative_error(std::span<const float> got, std::span<const float> want) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double d = static_cast<double>(got[i]) - want[i];
    error += d * d;
    energy += static_cast<double>(want[i]) * want[i];
  }
  return std::sqrt(error / energy);
}

class MicroTraining : public testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  ThreadPool pool_{2};
  Context cx_{pool_};
};

TEST_P(MicroTraining, LossGradientsAndTenSteps) {
  const auto [name, mode_index] = GetParam();
  const Mode& mode = kModes[mode_index];
  const Path folder = kGolden / name;
  const Golden golden(folder / fmt::format("golden.{}.safetensors", mode.name));
  auto created = train::Student::create(cx_, folder, load(folder), micro_options(mode.name, golden));
  ASSERT_TRUE(created.ok()) << created.status().text();
  train::Student& student = **created;
  train::LossPass pass(student, nullptr, {});
  const train::Batch batch = micro_batch(golden);
  train::Totals totals;
  totals.add(batch);

  const Tensor losses = golden["adamw_losses"];
  const std::vector<double>& ladder = student.options().quantize ? kQuantizedLadder : kExactLadder;
  for (int64_t step = 0; step < losses.elements(); ++step) {
    student.clear_gradients();
    const Result<train::Losses> got = pass.gradients(cx_, batch, totals);
    ASSERT_TRUE(got.ok()) << got.status().text();
    EXPECT_NEAR(got->loss, losses.f32()[step], ladder[std::min(static_cast<size_t>(step), ladder.size() - 1)])
        << "before update " << step + 1;
    if (step == 0) {
      EXPECT_EQ(got->ce_rows, 87);
      double worst = 0;
      for (const train::TrainedTensor& tensor : student.trained()) {
        const double error = relative_error(tensor.parameter.grad.f32_span(), golden["grad." + tensor.name].f32_span());
        EXPECT_LE(error, mode.gradient) << tensor.name;
        worst = std::max(worst, error);
      }
      RecordProperty("worst_gradient", fmt::format("{:.1e}", worst));
    }
    if (step + 1 == losses.elements()) {
      EXPECT_LT(got->loss, .7 * losses.f32()[0]);
    }
    ops::AdamW adamw;
    adamw.lr = 1e-3f;
    adamw.weight_decay = .01f;
    adamw.step = step + 1;
    for (train::TrainedTensor& tensor : student.trained()) tensor.decay = true;  // as the golden did
    student.update(cx_, adamw);
  }
}

INSTANTIATE_TEST_SUITE_P(AllModes, MicroTraining,
                         testing::Combine(testing::Values("micro", "micro_tied"), testing::Range(0, 4)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" + kModes[std::get<1>(info.param)].name;
                         });

}  // namespace
}  // namespace nibble::test
