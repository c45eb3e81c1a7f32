// What training promises whatever the weights are: masks, packing, recomputation, threads, resume, export.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "gate/train_bench.h"
#include "tests/support/models.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/training_step.h"
#include "train/memory_plan.h"
#include "train/sidecar.h"
#include "train/trainer.h"

namespace nibble::test {
namespace {

using train::Batch;
using train::Sample;

const Path kMicro = kGolden / "micro";

// Sequences of random ids; every third token is not trained.
std::vector<Sample> random_samples(int count, int64_t vocab) {
  std::vector<Sample> samples;
  Rng rng(7);
  for (int i = 0; i < count; ++i) {
    Sample sample;
    const int64_t T = 20 + 23 * i;
    for (int64_t t = 0; t < T; ++t) {
      sample.ids.push_back(static_cast<int32_t>(rng.uniform() * static_cast<float>(vocab)));
      sample.weight.push_back(t % 3 == 0 || t + 1 == T ? 0.0f : 1.0f);
    }
    sample.key = train::sample_key(sample.ids, sample.weight);
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::vector<const Sample*> pointers(const std::vector<Sample>& samples) {
  std::vector<const Sample*> list;
  for (const Sample& sample : samples) list.push_back(&sample);
  return list;
}

std::vector<float> all_gradients(train::Student& student) {
  std::vector<float> all;
  for (const train::TrainedTensor& t : student.trained()) {
    const std::span<float> grad = t.parameter.grad.f32_span();
    all.insert(all.end(), grad.begin(), grad.end());
  }
  return all;
}

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, energy = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    energy += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / energy);
}

class Training : public testing::Test {
 protected:
  std::unique_ptr<train::Student> student(Context& cx, const train::StudentOptions& options = {.quantize = true}) {
    auto created = train::Student::create(cx, kMicro, load(kMicro), options);
    NIBBLE_CHECK(created.ok());
    return std::move(created).value();
  }

  // Gradients of these batches as one step.
  std::vector<float> gradients(Context& cx, train::Student& student, const std::vector<Batch>& batches,
                               const train::LossOptions& options = {}) {
    train::LossPass pass(student, nullptr, options);
    train::Totals totals;
    for (const Batch& batch : batches) totals.add(batch);
    student.clear_gradients();
    for (const Batch& batch : batches) NIBBLE_CHECK(pass.gradients(cx, batch, totals).ok());
    return all_gradients(student);
  }

  Batch batch(std::span<const Sample* const> of) { return train::make_batch(of, train::Objective::ce); }

  ThreadPool pool_{2};
  Context cx_{pool_};
  std::vector<Sample> samples_ = random_samples(4, 160);
};

TEST_F(Training, RowsWithoutLossGiveExactlyNoGradient) {
  auto model = student(cx_);
  std::vector<Sample> masked = samples_;
  for (Sample& sample : masked) std::fill(sample.weight.begin(), sample.weight.end(), 0.0f);
  for (float g : gradients(cx_, *model, {batch(pointers(masked))})) ASSERT_EQ(g, 0.0f);
}

TEST_F(Training, PackedEqualsSeparate) {
  auto model = student(cx_);
  const auto all = pointers(samples_);
  std::vector<Batch> separate;
  for (const Sample* sample : all) separate.push_back(batch({&sample, 1}));
  const std::vector<float> packed = gradients(cx_, *model, {batch(all)});
  EXPECT_LE(relative_difference(gradients(cx_, *model, separate), packed), 1e-5);
}

TEST_F(Training, RecomputingChangesNoBit) {
  auto model = student(cx_);
  const std::vector<float> again = gradients(cx_, *model, {batch(pointers(samples_))}, {.keep_traces = false});
  EXPECT_EQ(gradients(cx_, *model, {batch(pointers(samples_))}, {.keep_traces = true}), again);
}

TEST_F(Training, ThreadsChangeNoBit) {
  ThreadPool one(1);
  Context single(one);
  auto a = student(cx_), b = student(single);
  EXPECT_EQ(gradients(cx_, *a, {batch(pointers(samples_))}), gradients(single, *b, {batch(pointers(samples_))}));
}

// The formula of the bench against the counts of the memory plan, which walks the tensors in another way.
TEST_F(Training, FlopsOfAStep) {
  auto all = student(cx_), linears = student(cx_, {.quantize = true, .trainable = train::Trainable::linears});
  const model::Config& config = all->weights().config;
  const train::ParameterCounts n = train::count_parameters({config, all->weights().tied, DType::bf16});
  const auto quantizable = static_cast<double>(n.quantizable), gates = static_cast<double>(n.gates);
  const auto head = static_cast<double>(config.vocab * config.hidden);
  const int64_t T = 100, R = 60;
  EXPECT_DOUBLE_EQ(gate::train_gemm_flop(*all, nullptr, T, R, false), 6 * T * (quantizable + gates) + 6 * R * head);
  EXPECT_DOUBLE_EQ(gate::train_gemm_flop(*all, nullptr, T, R, true), 8 * T * (quantizable + gates) + 6 * R * head);
  EXPECT_DOUBLE_EQ(gate::train_gemm_flop(*linears, &all->weights(), T, R, false),
                   8 * T * quantizable + 6 * T * gates + 6 * R * head);
}

// A whole optimizer step takes its memory once; later ones run in it.
TEST_F(Training, AStepAllocatesNothingAfterTheFirst) {
  auto model = student(cx_);
  train::LossPass pass(*model, nullptr, {});
  const Batch all = batch(pointers(samples_));
  const train::Schedule schedule{.lr = 1e-3f, .steps = 3};
  training_step(cx_, *model, pass, all, schedule, 0);
  const size_t reserved = cx_.arena.reserved_bytes();
  training_step(cx_, *model, pass, all, schedule, 1);
  EXPECT_EQ(cx_.arena.reserved_bytes(), reserved);
}

struct Format {
  const char* name;
  ops::MomentFormat moments;
  int64_t lora;
};

class Resume : public Training, public testing::WithParamInterface<Format> {};

TEST_P(Resume, EqualsTheRunWithoutABreakBitForBit) {
  const TemporaryFolder folder;
  train::TrainerOptions options;
  options.schedule.lr = 1e-3f;
  options.epochs = 3;
  options.batch.conversations = 1;
  options.accumulate = 2;
  options.flips_every = 0;
  train::StudentOptions how{.quantize = true, .lora = {GetParam().lora, 0}, .moments = GetParam().moments};
  const train::Exporter exporter({kMicro, "{}\n"}, pool_);

  auto whole = student(cx_, how);
  ASSERT_TRUE(train::train(cx_, *whole, nullptr, samples_, {}, options, exporter, folder / "whole", {}).ok());

  auto broken = student(cx_, how);
  const CancelToken stop = cx_.cancel;
  train::Observer observer;
  observer.step = [&](const train::StepResult& r) {
    if (r.step == 3) stop.cancel();
    return Status();
  };
  const auto first = train::train(cx_, *broken, nullptr, samples_, {}, options, exporter, folder / "broken", observer);
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(first->interrupted);
  EXPECT_EQ(first->steps, 3);

  cx_.cancel = {};
  auto resumed = student(cx_, how);
  options.resume = true;
  const auto rest = train::train(cx_, *resumed, nullptr, samples_, {}, options, exporter, folder / "broken", {});
  ASSERT_TRUE(rest.ok()) << rest.status().text();
  EXPECT_EQ(rest->steps, 6);
  for (size_t i = 0; i < whole->trained().size(); ++i) {
    const ops::AdamWParameter &a = whole->trained()[i].parameter, &b = resumed->trained()[i].parameter;
    const auto same = [](const Tensor& x, const Tensor& y) {
      return x.empty() || std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
    };
    EXPECT_TRUE(same(a.w, b.w) && same(a.low, b.low) && same(a.m.values, b.m.values) && same(a.v.values, b.v.values))
        << whole->trained()[i].name;
  }
  EXPECT_GT(resumed->count_flips(cx_).flipped, 0);

  options.settings = "others";
  const auto other = train::train(cx_, *resumed, nullptr, samples_, {}, options, exporter, folder / "broken", {});
  EXPECT_EQ(other.status().code(), Code::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Formats, Resume,
                         testing::Values(Format{"f32", ops::MomentFormat::f32, 0},
                                         Format{"bf16", ops::MomentFormat::bf16, 0},
                                         Format{"q8", ops::MomentFormat::q8, 0},
                                         Format{"lora", ops::MomentFormat::f32, 4}),
                         [](const auto& info) { return std::string(info.param.name); });

class Export : public Training, public testing::WithParamInterface<bool> {};

// The exporter itself compares codes and scales; here the loaded folder computes what the training forward computed.
TEST_P(Export, LoadsToTheLogitsOfTheTrainingForward) {
  const TemporaryFolder folder;
  train::StudentOptions how{.quantize = true};
  if (GetParam()) {
    load(kMicro).weights.for_each_linear(
        [&](std::string_view name, const ops::Linear&) { how.input_amax[std::string(name)] = 3.0f; });
  }
  auto model = student(cx_, how);
  gradients(cx_, *model, {batch(pointers(samples_))});
  ops::AdamW adamw;
  adamw.lr = 1e-2f;
  model->update(cx_, adamw);
  EXPECT_GT(model->count_flips(cx_).flipped, 0);
  ASSERT_TRUE(train::Exporter({kMicro, "{}\n"}, pool_).write(*model, folder / "out").ok());

  const checkpoint::LoadedModel served = load(folder / "out");
  const std::vector<int32_t>& ids = samples_.back().ids;
  const OwnedTensor expected = logits_of(cx_, model->weights(), ids), got = logits_of(cx_, served.weights, ids);
  EXPECT_EQ(std::memcmp(got.view.raw(), expected.view.raw(), expected.view.bytes()), 0);
}

INSTANTIATE_TEST_SUITE_P(WeightsAndInputs, Export, testing::Bool(),
                         [](const auto& info) { return info.param ? "W4A4" : "W4A16"; });

class Sidecar : public Training, public testing::WithParamInterface<const char*> {
 protected:
  const Path dir_ = kGolden / GetParam();
  const checkpoint::LoadedModel teacher_ = load(dir_);
  train::ResidentTeacher resident_{teacher_.weights};
  const TemporaryFolder folder_;

  // What a sidecar of this teacher gives, written and opened.
  train::SidecarTeacher sidecar(Context& cx, std::span<const Sample* const> samples, const Path& path) {
    train::SidecarHeader header;
    header.hidden = teacher_.weights.lm_head.in;
    header.dtype = train::head_operand(cx.numeric);
    NIBBLE_CHECK(train::write_sidecar(cx, resident_, samples, train::Objective::kl, header, path).ok());
    auto opened = train::SidecarTeacher::open(path, header, teacher_.weights.lm_head);
    NIBBLE_CHECK(opened.ok());
    return std::move(opened).value();
  }
  std::unique_ptr<train::Student> quantized(Context& cx) {
    auto created = train::Student::create(cx, dir_, load(dir_), {.quantize = true});
    NIBBLE_CHECK(created.ok());
    return std::move(created).value();
  }
};

// The file holds rows of samples read alone, the resident teacher reads them packed, in an order of every epoch's own.
TEST_P(Sidecar, TrainsBitForBitAsTheResidentTeacher) {
  std::vector<Sample> samples = random_samples(6, 160);
  samples[1].objective = train::Objective::ce;
  samples[2].objective = train::Objective::both;
  const std::vector<Sample> valid(samples.begin() + 4, samples.end());
  samples.resize(5);  // one of valid is trained on, too
  auto all = pointers(samples);
  for (const Sample& sample : valid) all.push_back(&sample);
  train::SidecarTeacher file = sidecar(cx_, all, folder_ / "teacher.hid");
  ASSERT_TRUE(file.holds(all, train::Objective::kl).ok());

  train::TrainerOptions options;
  options.schedule.lr = 1e-3f;
  options.epochs = 2;
  options.batch.conversations = 2;
  options.batch.objective = train::Objective::kl;
  const train::Exporter exporter({dir_, "{}\n"}, pool_);
  struct Run {
    std::vector<double> losses;
    std::unique_ptr<train::Student> student;
  };
  const auto run = [&](train::Teacher& teacher, const char* name) {
    Run r{{}, quantized(cx_)};
    train::Observer observer;
    observer.step = [&](const train::StepResult& s) {
      r.losses.insert(r.losses.end(), {s.losses.loss, s.losses.kl, s.losses.teacher_entropy, s.gradient_norm});
      return Status();
    };
    observer.eval = [&](const train::EvalResult& e) {
      r.losses.insert(r.losses.end(), {e.losses.loss, e.losses.kl, static_cast<double>(e.losses.agree)});
      return Status();
    };
    const auto summary =
        train::train(cx_, *r.student, &teacher, samples, valid, options, exporter, folder_ / name, observer);
    EXPECT_TRUE(summary.ok()) << summary.status().text();
    return r;
  };
  const Run a = run(resident_, "resident"), b = run(file, "sidecar");
  EXPECT_GE(a.losses.size(), 6u * 4 + 3 * 3);
  EXPECT_EQ(a.losses, b.losses);
  for (size_t i = 0; i < a.student->trained().size(); ++i) {
    const ops::AdamWParameter &x = a.student->trained()[i].parameter, &y = b.student->trained()[i].parameter;
    EXPECT_EQ(std::memcmp(x.w.raw(), y.w.raw(), x.w.bytes()), 0) << a.student->trained()[i].name;
  }
}

// Where products read BF16, the file holds BF16: half the bytes, the same losses.
TEST_P(Sidecar, HoldsTheOperandOfTheHead) {
  const std::vector<Sample> samples = random_samples(4, 160);
  std::vector<double> bytes;
  for (const Numeric numeric : {Numeric::exact, Numeric::bf16_act}) {
    Context cx(pool_, numeric);
    const Path path = folder_ / name(numeric);
    train::SidecarTeacher file = sidecar(cx, pointers(samples), path);
    bytes.push_back(static_cast<double>(std::filesystem::file_size(path)));
    auto model = quantized(cx);
    train::LossPass from_file(*model, &file, {}), from_model(*model, &resident_, {});
    const train::BatchOptions batch{.conversations = 3, .objective = train::Objective::kl};
    const auto a = train::evaluate(cx, from_model, samples, batch), b = train::evaluate(cx, from_file, samples, batch);
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_GT(a->kl, 0);
    EXPECT_EQ(a->kl, b->kl);
    EXPECT_EQ(a->loss, b->loss);
    EXPECT_EQ(a->teacher_entropy, b->teacher_entropy);
  }
  EXPECT_LT(bytes[1], 0.6 * bytes[0]);
}

INSTANTIATE_TEST_SUITE_P(Models, Sidecar, testing::Values("micro", "micro_tied"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace nibble::test
