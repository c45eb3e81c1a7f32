#include "quantize/gptq.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>

#include "base/file.h"
#include "io/json.h"
#include "ops/quant/nvfp4.h"
#include "tests/support/hessian_vectors.h"
#include "tests/support/op_test.h"

namespace nibble::quantize {
namespace {

using test::HessianVectors;
using test::TestContext;
using test::TestTensor;

std::string hex(const Tensor& bytes) {
  std::string text;
  for (int64_t i = 0; i < bytes.elements(); ++i) text += fmt::format("{:02X}", bytes.u8()[i]);
  return text;
}

// Codes with the code of -0 read as that of 0: tools differ in the sign they give to zero.
std::string without_negative_zero(std::string packed) {
  for (char& digit : packed) digit = digit == '8' ? '0' : digit;
  return packed;
}

struct Solved {
  TestTensor codes, compensated;
  GptqReport report;

  Solved(Context& cx, const HessianVectors& v, const TestTensor& scales, const GptqOptions& options = {})
      : codes({v.w.view.dim(0), v.w.view.dim(1) / 2}, DType::u8), compensated(v.w.view.shape()) {
    report = gptq(cx, v.w.view, v.hessian.view, v.scale, scales.view, options, codes.view, compensated.view);
    EXPECT_TRUE(codes.guards_intact() && compensated.guards_intact());
  }
  std::string packed() const { return without_negative_zero(hex(codes.view)); }
};

TestTensor nearest(Context& cx, const HessianVectors& v, const TestTensor& scales) {
  TestTensor codes({v.w.view.dim(0), v.w.view.dim(1) / 2}, DType::u8);
  ops::nvfp4_encode(cx, v.w.view, v.scale, scales.view, codes.view);
  return codes;
}

constexpr const char* kMaxCodes =
    "9C2CD7BD850A20AA66EAC555E06AD2779E662AEDCDC1F35DC7D05930102C48AE620290A7D78D56D23E505198FC2AE26430C2DE5EDD78EAF435"
    "47"
    "EC2F93012224";
constexpr const char* kSweepCodes =
    "9C2CD7BD850A20AA56D9B445E059D3768E662BEDBDC1F35CC7C94941892C48AE620290A7D78D56D22D504181FC19D26330C2DE6FDE70E9F444"
    "37"
    "EC2FA4023214";

TEST(Gptq, VectorG4) {
  const HessianVectors g4(34);
  EXPECT_EQ(g4.w_hash, 0xd319b396ce1da096u);
  EXPECT_EQ(g4.x_hash, 0xb1eb3d1dbf8057dbu);
  EXPECT_EQ(f32_bits(g4.scale.ws2), 0x37c92492u);
  EXPECT_NEAR(g4.hessian.values()[0], .741807, 1e-6);
  EXPECT_NEAR(g4.hessian.values()[1], .555330, 1e-6);
  EXPECT_NEAR(g4.hessian.values()[31], .175223, 1e-6);
  for (const int threads : {1, 3}) {
    TestContext test(threads);
    const std::map<std::string, TestTensor> scales = g4.all_scales(test.cx);
    EXPECT_EQ(hex(scales.at("max").view), "7C7B7C7D7D7B7C7E");
    EXPECT_EQ(hex(scales.at("sweep").view), "7C7D7D7E7D7C7B7E");
    EXPECT_EQ(hex(scales.at("hessian").view), "7B7D7A7D7E7C7B7E");
    for (const int64_t block : {16, 32, 128}) {
      const GptqOptions options{.block = block};
      const Solved max(test.cx, g4, scales.at("max"), options), sweep(test.cx, g4, scales.at("sweep"), options),
          searched(test.cx, g4, scales.at("hessian"), options);
      EXPECT_EQ(max.packed(), without_negative_zero(kMaxCodes)) << block;
      EXPECT_EQ(sweep.packed(), without_negative_zero(kSweepCodes)) << block;
      EXPECT_NEAR(max.report.loss, .005032, 6e-7);
      EXPECT_NEAR(sweep.report.loss, .003923, 6e-7);
      EXPECT_NEAR(searched.report.loss, .003674, 6e-7);
      EXPECT_NEAR(max.report.nearest_loss, .013435, 6e-7);
      EXPECT_NEAR(sweep.report.nearest_loss, .007706, 6e-7);
      EXPECT_NEAR(searched.report.nearest_loss, .006237, 6e-7);
      EXPECT_EQ(max.report.damping_retries, 0);
      EXPECT_FALSE(max.report.fell_back_to_nearest);
    }
  }
}

TEST(Gptq, VectorG4AsLlmCompressorGivesItWithAndWithoutActOrder) {
  const HessianVectors g4(34);
  TestContext test;
  const std::map<std::string, TestTensor> scales = g4.all_scales(test.cx);
  const Result<std::string> text = read_file(NIBBLE_SOURCE_DIR "/tests/golden/compressed_tensors/g4.json");
  ASSERT_TRUE(text.ok());
  const Json golden = *parse_json(*text, "g4.json");
  for (const std::string name : {"max", "sweep"}) {
    for (const bool act_order : {false, true}) {
      const Json& theirs = golden[name + " block 16 actorder " + (act_order ? "weight" : "None")];
      const Solved ours(test.cx, g4, scales.at(name), {.act_order = act_order, .block = 16});
      EXPECT_EQ(ours.packed(), without_negative_zero(theirs["packed"].get<std::string>())) << name << act_order;
      EXPECT_NEAR(ours.report.loss, theirs["relative_loss"].get<double>(), 1e-7) << name << act_order;
    }
  }
}

TEST(Gptq, NeverLosesToNearestOnCorrelatedInputs) {
  TestContext test;
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    const HessianVectors v(seed);
    for (const auto& [name, scales] : v.all_scales(test.cx)) {
      for (const bool act_order : {false, true}) {
        const Solved solved(test.cx, v, scales, {.act_order = act_order});
        EXPECT_LE(solved.report.loss, solved.report.nearest_loss) << seed << " " << name;
      }
    }
  }
}

TEST(Gptq, CompensatedWeightsRoundToTheCodes) {
  TestContext test;
  const HessianVectors v(7);
  for (const auto& [name, scales] : v.all_scales(test.cx)) {
    for (const bool act_order : {false, true}) {
      const Solved solved(test.cx, v, scales, {.act_order = act_order});
      const TestTensor codes({4, 16}, DType::u8);
      ops::nvfp4_encode(test.cx, solved.compensated.view, v.scale, scales.view, codes.view);
      test::expect_same_bits(codes.view, solved.codes.view, "codes");
    }
  }
}

TEST(Gptq, IdentityIsRoundingToNearest) {
  TestContext test;
  HessianVectors v(11);
  for (int64_t i = 0; i < 32; ++i) {
    for (int64_t j = 0; j < 32; ++j) v.hessian.view.f32()[i * 32 + j] = i == j ? 1 : 0;
  }
  for (const auto& [name, scales] : v.all_scales(test.cx)) {
    const Solved solved(test.cx, v, scales);
    test::expect_same_bits(solved.codes.view, nearest(test.cx, v, scales).view, name.c_str());
    EXPECT_EQ(solved.report.loss, solved.report.nearest_loss);
  }
}

TEST(Gptq, DeadColumnsAreRoundedNotCleared) {
  TestContext test;
  HessianVectors v(13);
  for (int64_t j = 0; j < 32; ++j) {
    for (const int64_t dead : {3, 20}) v.hessian.view.f32()[dead * 32 + j] = v.hessian.view.f32()[j * 32 + dead] = 0;
  }
  for (int64_t row = 0; row < 4; ++row) v.w.view.f32()[row * 32 + 9] = 0;  // dead by its weights
  const TestTensor scales = v.scales_max(test.cx), rounded = nearest(test.cx, v, scales);
  for (const bool act_order : {false, true}) {
    const Solved solved(test.cx, v, scales, {.act_order = act_order});
    const auto code = [](const TestTensor& codes, int64_t row, int64_t k) {
      return codes.view.u8()[row * 16 + k / 2] >> (k % 2 * 4) & 15;
    };
    for (int64_t row = 0; row < 4; ++row) {
      for (const int64_t k : {3, 20}) EXPECT_EQ(code(solved.codes, row, k), code(rounded, row, k));
      EXPECT_EQ(code(solved.codes, row, 9), 0);
    }
    EXPECT_LT(solved.report.loss, solved.report.nearest_loss);
  }
}

TEST(Gptq, DuplicatedColumnsShareTheirError) {
  // Column 17 always equals column 5, so H is singular; damping makes it solvable.
  TestContext test;
  HessianVectors v(17);
  float* h = v.hessian.view.f32();
  for (int64_t j = 0; j < 32; ++j) h[17 * 32 + j] = h[5 * 32 + j];
  for (int64_t i = 0; i < 32; ++i) h[i * 32 + 17] = h[i * 32 + 5];
  const TestTensor scales = v.scales_max(test.cx);
  const Solved solved(test.cx, v, scales);
  EXPECT_FALSE(solved.report.fell_back_to_nearest);
  EXPECT_LT(solved.report.loss, solved.report.nearest_loss);
  const Solved undamped(test.cx, v, scales, {.damping = 0});
  EXPECT_EQ(undamped.report.fell_back_to_nearest, undamped.report.damping_retries == 3);
}

TEST(Gptq, DampingIsRaisedWhereTheHessianIsNotPositiveDefinite) {
  TestContext test;
  HessianVectors v(19);
  const TestTensor scales = v.scales_max(test.cx);
  // The smallest eigenvalue falls below -.05 times the mean of the diagonal, not below -.5 times.
  double mean = 0;
  for (int64_t i = 0; i < 32; ++i) mean += v.hessian.values()[static_cast<size_t>(i * 33)] / 32;
  float* h = v.hessian.view.f32();
  h[0] = static_cast<float>(-.1 * mean);
  for (int64_t j = 1; j < 32; ++j) h[j] = h[j * 32] = 0;
  const Solved solved(test.cx, v, scales);
  EXPECT_EQ(solved.report.damping_retries, 1);
  EXPECT_FALSE(solved.report.fell_back_to_nearest);

  h[0] = static_cast<float>(-1000 * mean);
  const Solved hopeless(test.cx, v, scales);
  EXPECT_EQ(hopeless.report.damping_retries, 3);
  EXPECT_TRUE(hopeless.report.fell_back_to_nearest);
  test::expect_same_bits(hopeless.codes.view, nearest(test.cx, v, scales).view, "codes");
  test::expect_same_bits(hopeless.compensated.view, v.w.view, "weights");

  h[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(Solved(test.cx, v, scales).report.fell_back_to_nearest);
}

// The formula of the header, column by column in f64, over a shape with several blocks, slabs and an odd rest.
TEST(Gptq, EqualsTheFormulaOnLargerShapes) {
  Rng rng(23);
  const int64_t rows = 150, columns = 336, tokens = 500;
  const TestTensor w = TestTensor::normal(rng, {rows, columns}, .05f), x({tokens, columns}),
                   hessian({columns, columns});
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = x.view.f32() + t * columns;
    for (int64_t k = 0; k < columns; ++k) row[k] = rng.normal() + (k > 0 ? .75f * row[k - 1] : 0);
  }
  for (int64_t i = 0; i < columns; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < tokens; ++t) {
        sum += static_cast<double>(x.view.f32()[t * columns + i]) * x.view.f32()[t * columns + j];
      }
      hessian.view.f32()[i * columns + j] = hessian.view.f32()[j * columns + i] =
          static_cast<float>(2 * sum / static_cast<double>(tokens));
    }
  }
  TestContext one(1), three(3);
  const Nvfp4TensorScale scale = nvfp4_tensor_scale(ops::tensor_amax(one.cx, w.view).amax);
  const TestTensor scales({rows, columns / 16}, DType::f8e4m3);
  ops::nvfp4_scales_mse(one.cx, w.view, scale, scales.view);

  for (const bool act_order : {false, true}) {
    const GptqOptions options{.act_order = act_order};
    const GptqFactor factor = GptqFactor::make(one.cx, hessian.view, options);
    ASSERT_TRUE(factor.usable());
    const TestTensor codes({rows, columns / 2}, DType::u8), other({rows, columns / 2}, DType::u8);
    const GptqReport report =
        gptq_encode(one.cx, w.view, factor, hessian.view, scale, scales.view, options, codes.view);
    const GptqReport again = gptq_encode(three.cx, w.view, GptqFactor::make(three.cx, hessian.view, options),
                                         hessian.view, scale, scales.view, options, other.view);
    test::expect_same_bits(codes.view, other.view, "codes on three threads");
    EXPECT_EQ(report.loss, again.loss);
    EXPECT_LT(report.loss, .7 * report.nearest_loss);

    int64_t different = 0;
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<double> rest(w.view.f32() + row * columns, w.view.f32() + (row + 1) * columns);
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t k = factor.order()[static_cast<size_t>(i)];
        const float step = nvfp4_step(scales.view.u8()[row * columns / 16 + k / 16], scale.ws2);
        const float* upper = factor.upper() + i * columns;
        const uint8_t code = nvfp4_code(static_cast<float>(rest[static_cast<size_t>(k)]), step);
        const double error = (rest[static_cast<size_t>(k)] - nvfp4_value(code, step)) / upper[i];
        for (int64_t j = i; j < columns; ++j) {
          rest[static_cast<size_t>(factor.order()[static_cast<size_t>(j)])] -= error * upper[j];
        }
        different += code != (codes.view.u8()[row * columns / 2 + k / 2] >> (k % 2 * 4) & 15);
      }
    }
    EXPECT_LT(different, rows * columns / 1000) << "f32 against f64: a code at a tie and what follows from it";

    // e H e' by the formula.
    double numerator = 0, denominator = 0;
    std::vector<float> e(static_cast<size_t>(columns));
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = w.view.f32() + row * columns;
      for (int64_t k = 0; k < columns; ++k) {
        const float step = nvfp4_step(scales.view.u8()[row * columns / 16 + k / 16], scale.ws2);
        const auto code = static_cast<uint8_t>(codes.view.u8()[row * columns / 2 + k / 2] >> (k % 2 * 4) & 15);
        e[static_cast<size_t>(k)] = nvfp4_value(code, step) - from[k];
      }
      for (int64_t i = 0; i < columns; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          const double h = hessian.view.f32()[i * columns + j];
          numerator += e[static_cast<size_t>(i)] * h * e[static_cast<size_t>(j)];
          denominator += from[i] * h * from[j];
        }
      }
    }
    EXPECT_NEAR(report.loss, numerator / denominator, 1e-5 * report.loss);
  }
}

TEST(Gptq, ATensorStoredAsZeroStaysZero) {
  TestContext test;
  HessianVectors v(29);
  v.scale = {};
  const TestTensor scales = v.scales_max(test.cx);
  const Solved solved(test.cx, v, scales);
  for (int64_t i = 0; i < solved.codes.view.elements(); ++i) EXPECT_EQ(solved.codes.view.u8()[i], 0);
  EXPECT_NEAR(solved.report.loss, 1, 1e-6);
}

}  // namespace
}  // namespace nibble::quantize
