#include "gate/train_bench.h"

#include <cblas.h>

#include <algorithm>

#include "base/clock.h"
#include "base/rng.h"
#include "gate/stats.h"
#include "ops/optim/squared_norm.h"

namespace nibble::gate {
namespace {

std::vector<train::Sample> random_samples(const TrainBenchOptions& options, int64_t vocab) {
  Rng rng(1);
  std::vector<train::Sample> samples(static_cast<size_t>(options.sequences));
  for (train::Sample& sample : samples) {
    for (int64_t t = 0; t < options.length; ++t) {
      sample.ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint32_t>(vocab))));
      sample.weight.push_back(t + 1 < options.length ? 1.0f : 0.0f);
    }
  }
  return samples;
}

/// C = A B by our own product and by OpenBLAS, a thread of the pool at a tile each.
class SgemmProbe {
 public:
  explicit SgemmProbe(Context& cx) : cx_(cx) {
    const Shape square{kSide, kSide};
    for (Tensor* matrix : {&a_, &b_, &c_}) {
      *matrix = buffers_.emplace_back(Buffer::for_tensor(DType::f32, square)).tensor(DType::f32, square);
      std::ranges::fill(matrix->f32_span(), 1.0f);
    }
    openblas_set_num_threads(1);
  }

  void measure() {
    Stopwatch watch;
    Tensor none;
    ops::linear_vjp(cx_, a_, none, model::dense_linear(b_), c_, none);
    own_.push_back(kGflop / watch.seconds());
    watch = {};
    constexpr int64_t kTile = 512, kAcross = kSide / kTile;
    cx_.pool.parallel_for(kAcross * kAcross, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / kAcross * kTile, column = i % kAcross * kTile;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, kTile, kTile, kSide, 1, a_.f32() + row * kSide, kSide,
                    b_.f32() + column, kSide, 0, c_.f32() + row * kSide + column, kSide);
      }
    });
    openblas_.push_back(kGflop / watch.seconds());
  }

  std::vector<SgemmRate> rates() const { return {{"nibble", median(own_)}, {"OpenBLAS", median(openblas_)}}; }

 private:
  static constexpr int64_t kSide = 2048;
  static constexpr double kGflop = 2e-9 * kSide * kSide * kSide;

  Context& cx_;
  std::vector<Buffer> buffers_;
  Tensor a_, b_, c_;
  std::vector<double> own_, openblas_;
};

// As the training loop does it, with one micro-batch.
Status step(Context& cx, train::Student& student, train::LossPass& pass, const train::Batch& batch, int64_t number) {
  train::Totals totals;
  totals.add(batch);
  student.clear_gradients();
  NIBBLE_RETURN_IF_ERROR(pass.gradients(cx, batch, totals).status());
  ops::AdamW adamw;
  adamw.lr = 1e-5f;
  adamw.weight_decay = .01f;
  adamw.step = number;
  adamw.clip = ops::clip_factor(student.gradient_norm(cx), 1);
  student.update(cx, adamw);
  return {};
}

}  // namespace

double train_gemm_flop(train::Student& student, const model::Weights* teacher, int64_t tokens, int64_t rows,
                       bool recompute) {
  const auto weights_of = [](const ops::Linear& linear) { return static_cast<double>(linear.out * linear.in); };
  const auto T = static_cast<double>(tokens), R = static_cast<double>(rows);
  const auto forward = [&](const model::Weights& weights) {
    double blocks = -weights_of(weights.lm_head);  // the walk ends with it
    weights.for_each_linear([&](std::string_view, const ops::Linear& linear) { blocks += weights_of(linear); });
    return std::pair{2 * T * blocks, 2 * R * weights_of(weights.lm_head)};
  };
  const auto [blocks, head] = forward(student.weights());
  double trained = 0;
  student.gradients().for_each_linear([&](std::string_view name, const ops::Linear& linear) {
    if (name != "lm_head" && !linear.weight.empty()) trained += 2 * T * static_cast<double>(linear.weight.elements());
  });
  double sum = blocks * (recompute ? 3 : 2) + trained + head * (student.head_gradient().empty() ? 2 : 3);
  if (teacher != nullptr) {
    const auto [teacher_blocks, teacher_head] = forward(*teacher);
    sum += teacher_blocks + teacher_head;
  }
  return sum;
}

const SgemmRate& TrainBenchResult::fastest_sgemm() const {
  return *std::ranges::max_element(sgemm, {}, &SgemmRate::gflop_s);
}

Json TrainBenchResult::json() const {
  Json rates;
  for (const SgemmRate& rate : sgemm) rates[rate.name] = rate.gflop_s;
  return {{"tokens", tokens},     {"step_ms", step_s * 1e3}, {"tok_s", tok_s()}, {"gemm_gflop", gemm_flop * 1e-9},
          {"gflop_s", gflop_s()}, {"sgemm_gflop_s", rates},  {"share", share()}};
}

Result<TrainBenchResult> train_bench(Context& cx, train::Student& student, const model::Weights* teacher,
                                     const TrainBenchOptions& options, const Progress& progress) {
  const model::Config& config = student.weights().config;
  if (options.length > config.max_positions) {
    return invalid_argument("--length: expected at most {} tokens, got {}", config.max_positions, options.length);
  }
  const std::vector<train::Sample> samples = random_samples(options, config.vocab);
  std::vector<const train::Sample*> pointers;
  pointers.reserve(samples.size());
  for (const train::Sample& sample : samples) pointers.push_back(&sample);
  const train::Batch batch = train::make_batch(pointers, options.objective);
  std::optional<train::ResidentTeacher> resident;
  if (teacher != nullptr) resident.emplace(*teacher);
  train::LossPass pass(student, resident ? &*resident : nullptr, options.loss);

  SgemmProbe probe(cx);
  std::vector<double> seconds;
  const auto total = static_cast<uint64_t>(options.repeats) + 1;
  for (int i = 0; i <= options.repeats; ++i) {
    nibble::report(progress, static_cast<uint64_t>(i), total, "step");
    probe.measure();
    const Stopwatch watch;
    NIBBLE_RETURN_IF_ERROR(step(cx, student, pass, batch, i + 1));
    if (i > 0) seconds.push_back(watch.seconds());
  }
  nibble::report(progress, total, total, "done");
  TrainBenchResult result;
  result.tokens = batch.tokens();
  result.gemm_flop = train_gemm_flop(student, teacher, batch.tokens(), std::max(batch.ce_rows, batch.kl_rows),
                                     !options.loss.keep_traces);
  result.step_s = median(seconds);
  result.sgemm = probe.rates();
  return result;
}

}  // namespace nibble::gate
