#include "quantize/low_rank.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/file.h"
#include "io/json.h"
#include "quantize/lapack.h"
#include "tensor/numeric.h"
#include "tests/support/golden.h"
#include "tests/support/op_test.h"

namespace nibble::quantize {
namespace {

using test::TestContext;
using test::TestTensor;

double norm(std::span<const float> x) {
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * v;
  return std::sqrt(squares);
}

// b a in f64.
std::vector<double> product(const LowRank& f) {
  const int64_t rows = f.b.view.dim(0), rank = f.b.view.dim(1), columns = f.a.view.dim(1);
  const std::vector<double> a(f.a.view.f32(), f.a.view.f32() + f.a.view.elements()),
      b(f.b.view.f32(), f.b.view.f32() + f.b.view.elements());
  std::vector<double> c(static_cast<size_t>(rows * columns));
  matmul(rows, columns, rank, b.data(), rank, a.data(), columns, c.data(), columns);
  return c;
}

double residual_norm(const Tensor& w, const LowRank& factors) {
  const std::vector<double> p = product(factors);
  double squares = 0;
  for (size_t i = 0; i < p.size(); ++i) squares += std::pow(static_cast<double>(w.f32()[i]) - p[i], 2);
  return std::sqrt(squares);
}

// The weights that ModelOpt factorized: columns divided by its pre_quant_scale.
TEST(LowRank, ModelOptsFactorsAndResidual) {
  const Path folder = NIBBLE_SOURCE_DIR "/tests/golden/modelopt/svdquant";
  const test::Golden golden(folder / "factors_rank32_fp32.safetensors");
  const Json facts = *parse_json(*read_file(folder / "factors_rank32_fp32.json"), "factors");
  const auto model = SafetensorsFolder::open(NIBBLE_SOURCE_DIR "/models/tiny-voice");
  ASSERT_TRUE(model.ok());
  TestContext test;
  for (const std::string name : {"model.layers.0.linear_attn.out_proj", "model.layers.3.self_attn.k_proj"}) {
    const SafetensorsFolder::Entry* entry = model->find(name + ".weight");
    const Tensor source = *entry->file->tensor(*entry->info);
    const TestTensor w(source.shape());
    const float* scale = golden[name + ".pre_quant_scale"].f32();
    const int64_t columns = source.dim(1);
    for (int64_t i = 0; i < source.elements(); ++i) {
      w.view.f32()[i] = bf16_to_f32(source.bf16()[i]) * (1 / scale[i % columns]);
    }
    EXPECT_NEAR(norm(w.values()), facts[name]["smoothed_frobenius"].get<double>(), 1e-5 * norm(w.values()));

    const Result<LowRank> ours = low_rank_factors(test.cx, w.view, {});
    ASSERT_TRUE(ours.ok());
    const double left = residual_norm(w.view, *ours), theirs = facts[name]["residual_frobenius"].get<double>();
    EXPECT_NEAR(left, theirs, 1e-5 * theirs) << name;

    const Tensor a = golden[name + ".svdquant_lora_a"], b = golden[name + ".svdquant_lora_b"];
    LowRank other{OwnedTensor(DType::f32, a.shape()), OwnedTensor(DType::f32, b.shape())};
    std::copy_n(a.f32(), a.elements(), other.a.view.f32());
    std::copy_n(b.f32(), b.elements(), other.b.view.f32());
    const std::vector<double> p = product(*ours), q = product(other);
    double difference = 0, size = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      difference += (p[i] - q[i]) * (p[i] - q[i]);
      size += q[i] * q[i];
    }
    EXPECT_LE(std::sqrt(difference), 1e-5 * std::sqrt(size)) << name;
    // Rank by rank the same direction, up to its sign.
    for (int64_t r = 0; r < 32; ++r) {
      double dot = 0;
      for (int64_t k = 0; k < columns; ++k) {
        dot += static_cast<double>(ours->a.view.f32()[r * columns + k]) * a.f32()[r * columns + k];
      }
      double length = 0;
      for (int64_t k = 0; k < columns; ++k) length += std::pow(static_cast<double>(a.f32()[r * columns + k]), 2);
      EXPECT_NEAR(std::abs(dot) / std::sqrt(length), 1, 1e-4) << name << " " << r;
    }
  }
}

// b a + noise of a given size, b [rows,rank].
TestTensor of_rank(Rng& rng, int64_t rows, int64_t columns, int64_t rank, float noise) {
  const TestTensor a = TestTensor::normal(rng, {rank, columns}), b = TestTensor::normal(rng, {rows, rank});
  TestTensor w({rows, columns});
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      double sum = static_cast<double>(noise * rng.normal());
      for (int64_t r = 0; r < rank; ++r) {
        sum += static_cast<double>(b.view.f32()[i * rank + r]) * a.view.f32()[r * columns + j];
      }
      w.view.f32()[i * columns + j] = static_cast<float>(sum);
    }
  }
  return w;
}

TEST(LowRank, ExactRankLeavesTheRoundingOfBf16) {
  Rng rng(31);
  TestContext test(2);
  for (const int64_t exact_limit : {1024, 16}) {
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{96, 160}, {160, 96}}) {
      const TestTensor w = of_rank(rng, rows, columns, 8, 0), residual({rows, columns});
      const Result<LowRank> f = low_rank(test.cx, w.view, {.rank = 8, .exact_limit = exact_limit}, residual.view);
      ASSERT_TRUE(f.ok());
      EXPECT_TRUE(residual.guards_intact());
      EXPECT_LE(norm(residual.values()), 0x1p-7 * norm(w.values())) << exact_limit;
      EXPECT_GT(norm(residual.values()), 0);
      // From the rounded factors, to the last bit.
      for (int64_t i = 0; i < rows; i += 17) {
        for (int64_t j = 0; j < columns; j += 13) {
          double sum = 0;
          for (int64_t r = 0; r < 8; ++r) {
            sum += static_cast<double>(bf16_to_f32(f->b.view.bf16()[i * 8 + r])) *
                   bf16_to_f32(f->a.view.bf16()[r * columns + j]);
          }
          EXPECT_NEAR(residual.view.f32()[i * columns + j], w.view.f32()[i * columns + j] - sum, 1e-6);
        }
      }
    }
  }
}

TEST(LowRank, ResidualIsTheTailOfTheSingularValues) {
  Rng rng(37);
  TestContext test;
  const TestTensor w = of_rank(rng, 120, 200, 40, .5f), residual({120, 200});
  const Result<Svd> parts = svd({w.values().begin(), w.values().end()}, 120, 200);
  double tail = 0;
  for (size_t i = 32; i < 120; ++i) tail += parts->s[i] * parts->s[i];
  ASSERT_TRUE(low_rank(test.cx, w.view, {}, residual.view).ok());
  EXPECT_NEAR(norm(residual.values()), std::sqrt(tail), .01 * std::sqrt(tail));
}

TEST(LowRank, RandomizedIsWithinAPercentOfExact) {
  Rng rng(41);
  TestContext one(1), three(3);
  // Just above the limit; the first has the flattest spectrum there is, which is the hardest.
  const TestTensor plain = TestTensor::normal(rng, {1032, 1040}), peaked = of_rank(rng, 1040, 1032, 60, .3f);
  for (const TestTensor* w : {&plain, &peaked}) {
    const Result<LowRank> exact = low_rank_factors(one.cx, w->view, {.exact_limit = 2000}),
                          random = low_rank_factors(one.cx, w->view, {}),
                          again = low_rank_factors(three.cx, w->view, {});
    const double best = residual_norm(w->view, *exact), found = residual_norm(w->view, *random);
    EXPECT_GE(found, best * (1 - 1e-9));
    EXPECT_LE(found, best * 1.01);
    RecordProperty("excess", std::to_string(found / best - 1));
    test::expect_same_bits(random->a.view, again->a.view, "a on three threads");
    test::expect_same_bits(random->b.view, again->b.view, "b on three threads");
  }
}

TEST(LowRank, RefusesWeightsThatAreNotFinite) {
  TestContext test;
  Rng rng(43);
  const TestTensor w = TestTensor::normal(rng, {32, 48});
  w.view.f32()[77] = INFINITY;
  EXPECT_FALSE(low_rank(test.cx, w.view, {.rank = 4}, {}).ok());
}

}  // namespace
}  // namespace nibble::quantize
