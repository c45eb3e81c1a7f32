#include "quantize/signround.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstring>

#include "base/rng.h"
#include "checkpoint/fused_linears.h"
#include "checkpoint/load.h"
#include "ops/embed/embed.h"
#include "ops/quant/nvfp4.h"
#include "quantize/layerwise.h"
#include "quantize/moments.h"
#include "quantize/site_solver.h"
#include "tests/support/temporary_folder.h"

namespace nibble::quantize {
namespace {

constexpr int64_t kBlock = kNvfp4Block;

// sum g w' where nothing is rounded: w' = clamp(w / d + V, +-6) d with d = m unit, in the complex plane.
using C = std::complex<double>;
C smooth(const float* w, const std::vector<C>& v, C m, double unit, const float* g) {
  const C d = m * unit;
  C sum = 0;
  for (size_t i = 0; i < kBlock; ++i) {
    C x = static_cast<double>(w[i]) / d + v[i];
    if (std::fabs(x.real()) > 6) x = x.real() > 0 ? 6 : -6;
    sum += static_cast<double>(g[i]) * x * d;
  }
  return sum;
}

TEST(Signround, GradientMeetsComplexStep) {
  constexpr double kStep = 1e-50;
  Rng rng(1);
  int outside = 0;
  for (int repeat = 0; repeat < 20; ++repeat) {
    float w[kBlock], v[kBlock], g[kBlock], q[kBlock], dv[kBlock];
    std::vector<C> complex_v(kBlock);
    const float m = rng.uniform(.5f, 1.5f), unit = .02f, d = m * unit;
    for (size_t i = 0; i < kBlock; ++i) {
      w[i] = d * rng.uniform(-8, 8);
      v[i] = rng.uniform(-.5f, .5f);
      g[i] = rng.normal();
      complex_v[i] = v[i];
      const float x = w[i] / d + v[i];
      outside += std::fabs(x) > 6;
      q[i] = std::clamp(x, -6.0f, 6.0f);
    }
    const float dm = signround_gradient(w, v, q, d, unit, g, dv);
    for (size_t i = 0; i < kBlock; ++i) {
      std::vector<C> moved = complex_v;
      moved[i] += C(0, kStep);
      EXPECT_NEAR(dv[i], smooth(w, moved, m, unit, g).imag() / kStep, 1e-6);
    }
    EXPECT_NEAR(dm, smooth(w, complex_v, C(m, kStep), unit, g).imag() / kStep, 2e-5);
    EXPECT_EQ(signround_gradient(w, v, q, d, 0, g, dv), 0);
  }
  EXPECT_GT(outside, 10);
}

struct Quantized {
  OwnedTensor w, codes, scales;
  ops::Linear linear;

  Quantized(Context& cx, int64_t N, int64_t K)
      : w(DType::f32, {N, K}), codes(DType::u8, {N, K / 2}), scales(DType::f8e4m3, {N, K / kBlock}) {
    Rng rng(7);
    for (float& x : w.view.f32_span()) x = rng.normal();
    std::fill_n(w.view.f32() + K, kBlock, 0.0f);
    const Nvfp4TensorScale scale = nvfp4_tensor_scale(ops::tensor_amax(cx, w.view).amax);
    ops::nvfp4_scales_mse(cx, w.view, scale, scales.view);
    ops::nvfp4_encode(cx, w.view, scale, scales.view, codes.view);
    linear.format = ops::WeightFormat::nvfp4;
    linear.out = N, linear.in = K;
    linear.weight = codes.view, linear.block_scale = scales.view;
    linear.tensor_scale = scale.ws2;
  }
  OwnedTensor start() const {
    OwnedTensor copy(DType::f32, w.view.shape());
    std::memcpy(copy.view.raw(), w.view.raw(), copy.view.bytes());
    return copy;
  }
  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> all(codes.view.u8(), codes.view.u8() + codes.view.elements());
    all.insert(all.end(), scales.view.u8(), scales.view.u8() + scales.view.elements());
    return all;
  }
};

TEST(Signround, StepsAreWhatIsStored) {
  ThreadPool pool(2);
  Context cx(pool);
  const int64_t N = 6, K = 48;
  Quantized q(cx, N, K);
  const std::vector<uint8_t> first(q.scales.view.u8(), q.scales.view.u8() + q.scales.view.elements());
  SignroundLinear trained(q.linear, q.start());
  std::vector<float> v(static_cast<size_t>(N * K)), m(first.size(), 1);
  std::vector<uint8_t> kept;
  Rng rng(8);
  for (int step = 0; step < 30; ++step) {
    OwnedTensor before(DType::f32, {N, K});
    ops::nvfp4_dequantize(cx, q.codes.view, q.scales.view, q.linear.tensor_scale, before.view);
    std::vector<float> g(v.size());
    for (float& x : g) x = rng.normal();
    std::ranges::copy(g, trained.gradient().f32());
    const float rate = .03f, scale_rate = .01f;
    trained.step(cx, {rate, scale_rate, .5f});
    for (size_t i = 0; i < g.size(); ++i) ASSERT_EQ(trained.gradient().f32()[i], g[i] * .5f);
    for (size_t b = 0; b < first.size(); ++b) {
      if (b == static_cast<size_t>(K / kBlock)) continue;  // all zero: checked below
      const float ws2 = q.linear.tensor_scale, s0 = e4m3_to_f32(first[b]);
      const auto byte = [&] { return f32_to_e4m3(std::clamp(m[b] * s0, kE4m3Min, kE4m3Max)); };
      const float d = nvfp4_step(byte(), ws2);
      double dm = 0;
      float dv[kBlock];
      for (size_t i = 0; i < kBlock; ++i) {
        const size_t at = b * kBlock + i;
        const float w = q.w.view.f32()[at];
        const bool inside = std::fabs(w / d + v[at]) <= 6;
        dm += static_cast<double>(g[at]) * (before.view.f32()[at] / d - (inside ? w / d : 0));
        dv[i] = inside ? g[at] : 0;
      }
      const bool fits = m[b] * s0 <= kE4m3Max && m[b] * s0 >= kE4m3Min;
      if (fits) m[b] = std::clamp(dm > 0 ? m[b] - scale_rate : m[b] + scale_rate, .5f, 1.5f);
      for (size_t i = 0; i < kBlock; ++i) {
        float& x = v[b * kBlock + i];
        if (dv[i] != 0) x = std::clamp(dv[i] > 0 ? x - rate : x + rate, -.5f, .5f);
      }
      const uint8_t scale = byte();
      ASSERT_EQ(q.scales.view.u8()[b], scale);
      for (size_t i = 0; i < kBlock; ++i) {
        const size_t at = b * kBlock + i;
        const auto code = static_cast<uint8_t>(q.codes.view.u8()[at / 2] >> (at % 2 * 4) & 15);
        ASSERT_EQ(code, f32_to_e2m1(q.w.view.f32()[at] / nvfp4_step(scale, ws2) + v[at])) << at << " step " << step;
      }
    }
    if (step == 10) {
      trained.keep();
      kept = q.bytes();
    }
  }
  EXPECT_NE(q.bytes(), kept);
  trained.restore();
  EXPECT_EQ(q.bytes(), kept);
  const auto zero = static_cast<size_t>(K);  // the first block of the second row
  EXPECT_EQ(q.scales.view.u8()[zero / kBlock], kE4m3One);
  for (size_t i = 0; i < kBlock / 2; ++i) EXPECT_EQ(q.codes.view.u8()[zero / 2 + i], 0);
}

/// The micro model, ids and a plan that quantizes its linears.
struct Micro {
  checkpoint::LoadedModel model = checkpoint::load_checkpoint(NIBBLE_SOURCE_DIR "/tests/golden/micro").value();
  std::vector<std::vector<int32_t>> chats;
  Plan plan;
  std::map<std::string, float> input_amax;
  Recipe recipe;

  Micro() {
    Rng rng(3);
    for (const int length : {40, 33, 1, 70, 25, 64, 18}) {
      for (int32_t& id : chats.emplace_back(static_cast<size_t>(length))) {
        id = static_cast<int32_t>(rng.below(static_cast<uint32_t>(model.weights.config.vocab)));
      }
    }
    std::map<std::string, int64_t> groups;
    model.weights.for_each_linear([&](std::string_view name, ops::Linear&) {
      if (name == "lm_head" || name.ends_with("in_proj_a") || name.ends_with("in_proj_b")) return;
      PlannedTensor tensor;
      tensor.module = name;
      tensor.name = tensor.module + ".weight";
      tensor.format = Format::nvfp4;
      const auto next = static_cast<int64_t>(groups.size());
      tensor.group = groups.try_emplace(checkpoint::fused_module(tensor.module), next).first->second;
      plan.tensors.push_back(std::move(tensor));
    });
    recipe.scales = Scales::mse;
    recipe.rounding = Rounding::signround;
    recipe.act_order = true;
  }
};

struct Outcome {
  SignroundReport report;
  double loss = 0;                          // measured afterwards
  std::vector<std::vector<uint8_t>> bytes;  // codes and scales
  std::vector<ops::Nvfp4Stats> stats;
};

enum class Start { nearest, gptq };

// One layer of the micro model that reads embeddings.
Outcome train_layer(Micro& micro, int layer, int threads, Start from, SignroundOptions options) {
  ThreadPool pool(threads);
  Context cx(pool);
  const test::TemporaryFolder folder;
  const model::Weights& weights = micro.model.weights;
  const std::vector<Batch> batches = batches_of(micro.chats, 100);
  const std::string prefix = fmt::format("{}layers.{}.", weights.prefix, layer);
  model::BlockWeights block = weights.blocks[static_cast<size_t>(layer)];
  const model::BlockWeights unquantized = block;
  LayerRunner runner(cx, weights.config, layer, batches);

  HiddenStatesWriter in_writer = HiddenStatesWriter::create(folder / "in").value();
  for (const auto& chat : micro.chats) {
    OwnedTensor h(DType::f32, {static_cast<int64_t>(chat.size()), weights.config.hidden});
    ops::embed(cx, chat, weights.embed, h.view);
    EXPECT_TRUE(in_writer.append(h.view).ok());
  }
  EXPECT_TRUE(in_writer.commit().ok());
  const int64_t tokens = batches.back().end, hidden = weights.config.hidden;
  const HiddenStates in = HiddenStates::open(folder / "in", tokens, hidden).value();
  HiddenStatesWriter out_writer = HiddenStatesWriter::create(folder / "out").value();
  std::array<std::vector<Reader>, kSites> sites = sites_of(weights.config, prefix, block);
  Moments moments(cx, sites, {true, true, true, true});
  EXPECT_TRUE(runner
                  .whole(block, in, &moments.tap(),
                         [&](const Batch&, const model::BlockTrace&, const Tensor& h) { return out_writer.append(h); })
                  .ok());
  EXPECT_TRUE(out_writer.commit().ok());
  const HiddenStates reference = HiddenStates::open(folder / "out", tokens, hidden).value();

  LayerSolution solution;
  std::vector<SignroundStart> starts;
  SiteSolver solver(cx, micro.plan, micro.recipe, micro.input_amax);
  for (size_t i = 0; i < kSites; ++i) {
    const size_t first = solution.linears.size();
    const Tensor hessian = from == Start::gptq ? moments.finish(static_cast<SiteKind>(i)) : Tensor();
    EXPECT_TRUE(solver.solve(sites[i], hessian, solution).ok());
    signround_start(cx, sites[i], hessian, {.act_order = true}, first, solution, starts);
  }
  for (const SignroundStart& start : starts) {
    // Rounded to nearest under the scales at hand, the start gives the codes at hand.
    const ops::Linear& linear = solution.find(start.module)->solved.linear;
    OwnedTensor codes(DType::u8, linear.weight.shape());
    ops::nvfp4_encode(cx, start.weights.view, {linear.tensor_scale, false}, linear.block_scale, codes.view);
    EXPECT_EQ(std::memcmp(codes.view.raw(), linear.weight.raw(), codes.view.bytes()), 0) << start.module;
  }
  for (auto& readers : sites) {
    for (Reader& reader : readers) {
      if (const SolvedModule* of = solution.find(reader.module)) *reader.linear = of->solved.linear;
    }
  }
  Outcome outcome;
  outcome.report = signround(cx, weights.config, layer, prefix, batches, in, reference, unquantized, block,
                             std::move(starts), options, solution)
                       .value();
  double sum = 0;
  EXPECT_TRUE(runner
                  .whole(block, in, nullptr,
                         [&](const Batch& batch, const model::BlockTrace&, const Tensor& h) {
                           const Tensor wanted = reference.rows(batch.begin, batch.end);
                           for (int64_t i = 0; i < h.elements(); ++i) {
                             const double e = static_cast<double>(h.f32()[i]) - wanted.f32()[i];
                             sum += e * e;
                           }
                           return Status();
                         })
                  .ok());
  outcome.loss = sum / static_cast<double>(tokens * hidden);
  for (const SolvedModule& of : solution.linears) {
    const ops::Linear& linear = of.solved.linear;
    for (const Tensor& part : {linear.weight, linear.block_scale}) {
      outcome.bytes.emplace_back(part.u8(), part.u8() + part.elements());
    }
    outcome.stats.push_back(of.solved.stats);
  }
  return outcome;
}

TEST(Signround, LayerComesNearerAndHoldsWhatWasMeasured) {
  Micro micro;
  for (const int layer : {0, 3}) {  // delta rule, attention
    for (const Start start : {Start::nearest, Start::gptq}) {
      const Outcome got = train_layer(micro, layer, 2, start, {.iterations = 60, .tokens = 128, .evaluate_every = 10});
      EXPECT_GT(got.report.iteration, 0);
      EXPECT_LT(got.report.loss, got.report.first_loss * .95) << layer;
      EXPECT_EQ(got.loss, got.report.loss) << layer;
      for (const ops::Nvfp4Stats& stats : got.stats) {
        EXPECT_EQ(stats.lost_rows, 0);
        EXPECT_GT(stats.error, 0);
        EXPECT_LT(stats.relative_error(), .1);
      }
    }
  }
}

TEST(Signround, StartStaysWhereNoStepIsBetter) {
  Micro micro;
  // So large steps that the first leaves nothing in its place.
  const Outcome wild = train_layer(micro, 0, 1, Start::gptq, {.iterations = 3, .rate = .5f, .tokens = 1});
  const Outcome none = train_layer(micro, 0, 1, Start::gptq, {.iterations = 0});
  EXPECT_EQ(wild.report.iteration, 0);
  EXPECT_EQ(wild.report.loss, wild.report.first_loss);
  EXPECT_EQ(wild.bytes, none.bytes);
}

TEST(Signround, ThreadsDoNotMatter) {
  Micro micro;
  const SignroundOptions options{.iterations = 12, .tokens = 90, .evaluate_every = 4};
  for (const int layer : {0, 3}) {
    const Outcome one = train_layer(micro, layer, 1, Start::gptq, options);
    const Outcome two = train_layer(micro, layer, 2, Start::gptq, options);
    EXPECT_EQ(one.bytes, two.bytes);
    EXPECT_EQ(one.report.loss, two.report.loss);
    EXPECT_EQ(one.report.iteration, two.report.iteration);
  }
}

std::map<std::string, std::string> files_of(const Path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files[entry.path().filename().string()] = read_file(entry.path()).value();
  }
  return files;
}

TEST(Signround, InterruptedLayersGoOnWithTheSameResult) {
  Micro micro;
  ThreadPool pool(2);
  const auto solve = [&](const Path& work, std::string_view stop_at) {
    Context cx(pool);
    LayerwiseOptions options;
    options.recipe = micro.recipe;
    options.work = work;
    options.signround = {.iterations = 6, .tokens = 64, .evaluate_every = 3};
    options.signround_from_gptq = true;
    options.progress = [&](const ProgressUpdate& update) {
      if (!stop_at.empty() && update.what.starts_with(stop_at)) cx.cancel.cancel();
    };
    return solve_layers(cx, micro.model.weights, micro.plan, micro.chats, options);
  };
  const test::TemporaryFolder whole, parts;
  ASSERT_TRUE(solve(whole.path(), "").ok());
  EXPECT_FALSE(solve(parts.path(), "layer 0").ok());
  EXPECT_FALSE(solve(parts.path(), "layer 2: error").ok());
  ASSERT_TRUE(solve(parts.path(), "").ok());
  const auto expected = files_of(whole.path());
  EXPECT_EQ(expected.size(), 5u);  // layers and head: no stream is left
  EXPECT_EQ(files_of(parts.path()), expected);
}

}  // namespace
}  // namespace nibble::quantize
