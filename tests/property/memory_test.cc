// The memory plan against what a student, its states and its arena really take.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "tests/support/models.h"
#include "train/memory_plan.h"
#include "train/step.h"

namespace nibble::test {
namespace {

using train::BatchExtent;
using train::MemoryPlan;
using train::Sample;

std::vector<Sample> random_samples(const std::vector<int64_t>& lengths, int64_t vocab) {
  std::vector<Sample> samples;
  Rng rng(3);
  for (const int64_t length : lengths) {
    Sample& sample = samples.emplace_back();
    for (int64_t t = 0; t < length; ++t) {
      sample.ids.push_back(static_cast<int32_t>(rng.uniform() * static_cast<float>(vocab)));
      sample.weight.push_back(t + 1 < length ? 1.0f : 0.0f);
    }
  }
  return samples;
}

uint64_t item(const MemoryPlan& plan, std::string_view what) {
  for (const train::PlanItem& entry : plan.items) {
    if (entry.what == what) return entry.bytes;
  }
  return 0;
}

struct Case {
  const char* name;
  train::StudentOptions student;
  bool keep_traces = false, teacher = false;
};

class Memory : public testing::TestWithParam<Case> {
 protected:
  train::PlannedModel planned(const model::Weights& weights) {
    return {weights.config, weights.tied, weights.embed.dtype()};
  }

  ThreadPool pool_{2};
  Context cx_{pool_};
};

TEST_P(Memory, IsWhatThePlanSays) {
  checkpoint::LoadedModel loaded = load(kTinyVoice);
  const checkpoint::LoadedModel teacher_model = load(kTinyVoice);
  const train::PlannedModel model = planned(loaded.weights);
  auto created = train::Student::create(cx_, kTinyVoice, std::move(loaded), GetParam().student);
  ASSERT_TRUE(created.ok());
  train::Student& student = **created;

  const std::vector<Sample> samples = random_samples({350, 45, 166, 205}, model.config.vocab);
  train::PlanOptions options{.student = GetParam().student};
  options.batch = train::largest_batch(samples, {});
  EXPECT_EQ(options.batch.tokens, 766);
  options.keep_traces = GetParam().keep_traces;
  options.threads = pool_.threads();
  if (GetParam().teacher) options.teacher = model;
  const MemoryPlan plan = plan_memory(model, options);

  const uint64_t mapped = item(plan, "frozen weights"), vectors = item(plan, "vectors in f32");
  const uint64_t own = plan.state_bytes - mapped + item(plan, "4-bit codes");
  EXPECT_NEAR(static_cast<double>(student.bytes()), static_cast<double>(own), .001 * static_cast<double>(own));
  EXPECT_GT(vectors, 0u);

  train::ResidentTeacher teacher(teacher_model.weights);
  train::LossPass pass(student, GetParam().teacher ? &teacher : nullptr, {.keep_traces = GetParam().keep_traces});
  std::vector<const Sample*> all;
  for (const Sample& sample : samples) all.push_back(&sample);
  const auto batch = train::make_batch(all, GetParam().teacher ? train::Objective::kl : train::Objective::ce);
  train::Totals totals;
  totals.add(batch);
  ASSERT_TRUE(cx_.arena.reserve(plan.work_bytes).ok());
  ASSERT_TRUE(pass.gradients(cx_, batch, totals).ok());
  student.gradient_norm(cx_);
  student.update(cx_, {});
  student.count_flips(cx_);
  EXPECT_EQ(cx_.arena.reserved_bytes(), plan.work_bytes) << "the plan is too small";
  EXPECT_LE(static_cast<double>(plan.work_bytes), 1.25 * static_cast<double>(cx_.arena.peak_bytes()));
}

INSTANTIATE_TEST_SUITE_P(
    Runs, Memory,
    testing::Values(Case{"sft", {}}, Case{"sft_traces", {.moments = ops::MomentFormat::q8}, true},
                    Case{"sft_norms", {.trainable = train::Trainable::linears_and_norms}},
                    Case{"qat", {.quantize = true, .moments = ops::MomentFormat::bf16}},
                    Case{"qad", {.quantize = true, .trainable = train::Trainable::linears}, false, true},
                    Case{"qad_traces", {.quantize = true, .trainable = train::Trainable::linears}, true, true},
                    Case{"lora", {.lora = {4, 0}}}, Case{"qad_lora", {.quantize = true, .lora = {4, 0}}, false, true}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace nibble::test
