#include "ops/optim/adamw.h"

#include <gtest/gtest.h>

#include "ops/optim/moment_code.h"
#include "ops/optim/split_master.h"
#include "tests/support/op_test.h"

namespace nibble::ops {
namespace {

using test::TestContext;
using test::TestTensor;

/// A parameter with its own memory in the formats under test.
struct TestParameter {
  TestParameter(MasterFormat master, MomentFormat moments, const std::vector<float>& weights, DType grad_type)
      : master(master),
        w({size(weights)}, master == MasterFormat::f32 ? DType::f32 : DType::bf16),
        low({size(weights)}, DType::u16),
        grad({size(weights)}, grad_type) {
    for (int64_t i = 0; i < size(weights); ++i) {
      const float x = weights[static_cast<size_t>(i)];
      if (master == MasterFormat::f32) {
        w.view.f32()[i] = x;
      } else {
        w.view.bf16()[i] = master == MasterFormat::split ? split_hi(x) : f32_to_bf16(x);
      }
      low.view.u16()[i] = split_lo(x);
    }
    const DType type = moments == MomentFormat::f32    ? DType::f32
                       : moments == MomentFormat::bf16 ? DType::bf16
                                                       : DType::u8;
    for (int k = 0; k < 2; ++k) {
      values[k] = TestTensor({size(weights)}, type);
      absmax[k] = TestTensor({(size(weights) + kMomentBlock - 1) / kMomentBlock});
      std::memset(values[k].view.raw(), 0, values[k].view.bytes());
      std::memset(absmax[k].view.raw(), 0, absmax[k].view.bytes());
    }
    view = {w.view, master == MasterFormat::split ? low.view : Tensor(), grad.view, moment(0, type), moment(1, type)};
  }

  static int64_t size(const std::vector<float>& x) { return static_cast<int64_t>(x.size()); }
  Moment moment(int k, DType type) const { return {values[k].view, type == DType::u8 ? absmax[k].view : Tensor()}; }

  void set_grad(const std::vector<float>& g) {
    for (int64_t i = 0; i < size(g); ++i) {
      const float x = g[static_cast<size_t>(i)];
      if (grad.view.dtype() == DType::f32) {
        grad.view.f32()[i] = x;
      } else {
        grad.view.bf16()[i] = f32_to_bf16(x);
      }
    }
  }

  std::vector<float> weights() const {
    std::vector<float> x(static_cast<size_t>(w.view.elements()));
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = master == MasterFormat::f32     ? w.view.f32()[i]
             : master == MasterFormat::split ? split_join(w.view.bf16()[i], low.view.u16()[i])
                                             : bf16_to_f32(w.view.bf16()[i]);
    }
    return x;
  }

  bool guards_intact() const {
    return w.guards_intact() && low.guards_intact() && values[0].guards_intact() && values[1].guards_intact() &&
           absmax[0].guards_intact() && absmax[1].guards_intact();
  }

  MasterFormat master;
  TestTensor w, low, grad, values[2], absmax[2];
  AdamWParameter view;
};

std::vector<float> normal(Rng& rng, int64_t n, float scale) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& value : x) value = scale * rng.normal();
  return x;
}

TEST(AdamWOp, FirstStepInClosedForm) {
  // With zero moments m^ = g and sqrt(v^) = |g|.
  Rng rng(83);
  const std::vector<float> w = normal(rng, 700, .02f), g = normal(rng, 700, 1e-3f);
  TestParameter p(MasterFormat::f32, MomentFormat::f32, w, DType::f32);
  p.set_grad(g);
  TestContext test;
  const AdamW options{.lr = 1e-3f, .weight_decay = .01f};
  test::for_each_target([&] {
    TestParameter fresh(MasterFormat::f32, MomentFormat::f32, w, DType::f32);
    fresh.set_grad(g);
    adamw(test.cx, options, {}, fresh.view);
    for (size_t i = 0; i < w.size(); ++i) {
      const double gi = g[i], lr = options.lr;
      const double expected = w[i] * (1 - lr * options.weight_decay) - lr * gi / (std::abs(gi) + options.eps);
      EXPECT_NEAR(fresh.weights()[i], expected, 1e-6 * (std::abs(expected) + lr)) << i;
    }
  });
}

TEST(AdamWOp, FiftyStepsFollowTheRecurrenceInDouble) {
  Rng rng(89);
  constexpr int64_t kElements = 515;
  const std::vector<float> w = normal(rng, kElements, .02f);
  std::vector<double> x(w.begin(), w.end()), m(kElements, 0), v(kElements, 0);
  TestParameter p(MasterFormat::f32, MomentFormat::f32, w, DType::f32);
  TestContext test(2);
  AdamW o{.lr = 1e-3f, .weight_decay = .01f};
  const std::vector<float> direction = normal(rng, kElements, 1e-2f);
  for (o.step = 1; o.step <= 50; ++o.step) {
    std::vector<float> g = normal(rng, kElements, 1e-2f);
    for (size_t i = 0; i < g.size(); ++i) g[i] += direction[i];
    o.clip = o.step % 3 == 0 ? .25f : 1;
    p.set_grad(g);
    adamw(test.cx, o, {}, p.view);
    const double bc1 = 1 - std::pow(static_cast<double>(o.beta1), o.step);
    const double bc2 = 1 - std::pow(static_cast<double>(o.beta2), o.step);
    for (size_t i = 0; i < g.size(); ++i) {
      const double gi = static_cast<double>(o.clip) * g[i];
      m[i] = o.beta1 * m[i] + (1 - static_cast<double>(o.beta1)) * gi;
      v[i] = o.beta2 * v[i] + (1 - static_cast<double>(o.beta2)) * gi * gi;
      x[i] = x[i] * (1 - static_cast<double>(o.lr) * o.weight_decay) -
             o.lr * (m[i] / bc1) / (std::sqrt(v[i] / bc2) + o.eps);
    }
  }
  EXPECT_TRUE(p.guards_intact());
  const std::vector<float> actual = p.weights();
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(actual[i], x[i], 1e-6 * (std::abs(x[i]) + .02)) << i;
}

TEST(AdamWOp, SplitMasterEqualsF32MasterBitForBit) {
  Rng rng(97);
  constexpr int64_t kElements = 1000;
  const std::vector<float> w = normal(rng, kElements, .02f);
  TestContext test(2);
  for (const MomentFormat moments : {MomentFormat::f32, MomentFormat::bf16, MomentFormat::q8}) {
    TestParameter a(MasterFormat::f32, moments, w, DType::bf16), b(MasterFormat::split, moments, w, DType::bf16);
    AdamW o{.lr = 1e-5f, .weight_decay = .01f};
    for (o.step = 1; o.step <= 200; ++o.step) {
      const std::vector<float> g = normal(rng, kElements, 1e-3f);
      const RandomKey key{5, static_cast<uint64_t>(o.step), 0, 2};
      for (TestParameter* p : {&a, &b}) {
        p->set_grad(g);
        adamw(test.cx, o, key, p->view);
      }
    }
    const std::vector<float> x = a.weights(), y = b.weights();
    EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)), 0) << name(moments);
    EXPECT_TRUE(b.guards_intact()) << name(moments);
  }
}

TEST(AdamWOp, NeitherThreadsNorTargetsChangeABit) {
  Rng rng(101);
  constexpr int64_t kElements = 70001;  // many ranges, the last block not full
  const std::vector<float> w = normal(rng, kElements, .02f), g1 = normal(rng, kElements, 1e-3f),
                           g2 = normal(rng, kElements, 1e-3f);
  for (const MasterFormat master : {MasterFormat::f32, MasterFormat::split, MasterFormat::bf16}) {
    for (const MomentFormat moments : {MomentFormat::f32, MomentFormat::bf16, MomentFormat::q8}) {
      std::vector<std::vector<std::byte>> first;
      for (const int threads : {1, 3}) {
        TestContext test(threads);
        test::for_each_target([&] {
          TestParameter p(master, moments, w, DType::f32);
          for (int64_t step = 1; step <= 2; ++step) {
            p.set_grad(step == 1 ? g1 : g2);
            adamw(test.cx, {.lr = 1e-4f, .step = step}, {11, static_cast<uint64_t>(step), 0, 4}, p.view);
          }
          EXPECT_TRUE(p.guards_intact());
          const std::vector<std::vector<std::byte>> result = {p.w.bytes(), p.low.bytes(), p.values[0].bytes(),
                                                              p.values[1].bytes(), p.absmax[0].bytes()};
          if (first.empty()) first = result;
          EXPECT_EQ(result, first) << name(master) << " " << name(moments) << " " << threads;
        });
      }
    }
  }
}

/// Least squares, y = x a + noise; returns the loss of every step.
std::vector<double> regression(MasterFormat master, MomentFormat moments) {
  constexpr int64_t kInputs = 300, kSamples = 400, kSteps = 200;
  Rng rng(103);
  const std::vector<float> x = normal(rng, kInputs * kSamples, 1), truth = normal(rng, kInputs, .1f);
  std::vector<double> y(kSamples);
  for (int64_t s = 0; s < kSamples; ++s) {
    y[s] = .5 * rng.normal();
    for (int64_t i = 0; i < kInputs; ++i) y[s] += x[s * kInputs + i] * truth[i];
  }
  TestParameter p(master, moments, std::vector<float>(kInputs, 0), DType::f32);
  TestContext test;
  std::vector<double> losses;
  for (int64_t step = 1; step <= kSteps; ++step) {
    const std::vector<float> a = p.weights();
    std::vector<float> grad(kInputs, 0);
    double loss = 0;
    for (int64_t s = 0; s < kSamples; ++s) {
      double residual = -y[s];
      for (int64_t i = 0; i < kInputs; ++i) residual += x[s * kInputs + i] * a[i];
      loss += residual * residual / kSamples;
      for (int64_t i = 0; i < kInputs; ++i) {
        grad[i] += static_cast<float>(2 * residual * x[s * kInputs + i] / kSamples);
      }
    }
    losses.push_back(loss);
    p.set_grad(grad);
    adamw(test.cx, {.lr = 2e-3f, .step = step}, {1, static_cast<uint64_t>(step), 0, 0}, p.view);
  }
  return losses;
}

TEST(AdamWOp, SmallFormatsTrainLikeF32) {
  const std::vector<double> exact = regression(MasterFormat::f32, MomentFormat::f32);
  EXPECT_LT(exact.back(), .1 * exact.front());
  struct Format {
    MasterFormat master;
    MomentFormat moments;
    double limit;  // a BF16 master adds the noise of its own rounding
  };
  for (const auto& [master, moments, limit] :
       {Format{MasterFormat::split, MomentFormat::bf16, .01}, Format{MasterFormat::split, MomentFormat::q8, .01},
        Format{MasterFormat::bf16, MomentFormat::q8, .02}}) {
    const std::vector<double> losses = regression(master, moments);
    double difference = 0, total = 0;
    for (size_t i = 0; i < losses.size(); ++i) {
      difference += std::abs(losses[i] - exact[i]);
      total += exact[i];
    }
    EXPECT_LT(difference / total, limit) << name(master) << " " << name(moments);
    RecordProperty(std::string(name(master)) + "_" + name(moments), std::to_string(difference / total));
  }
}

TEST(AdamWOp, SecondMomentsThatRoundToNothingDoNotExplode) {
  // One gradient of 1 beside tiny ones: their second moments are far below the smallest code of the block.
  std::vector<float> g(256, 1e-5f);
  g[0] = 1;
  TestParameter p(MasterFormat::f32, MomentFormat::q8, std::vector<float>(256, 0), DType::f32);
  TestContext test;
  for (int64_t step = 1; step <= 20; ++step) {
    p.set_grad(g);
    adamw(test.cx, {.lr = 1e-3f, .step = step}, {}, p.view);
  }
  for (const float w : p.weights()) EXPECT_LE(std::abs(w), 20 * 1.1e-3f);
}

}  // namespace
}  // namespace nibble::ops
