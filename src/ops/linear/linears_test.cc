#include "ops/linear/linears.h"

#include "ops/activation/swiglu.h"
#include "ops/norm/add_rms_norm.h"
#include "tests/support/cuda_test.h"
#include "tests/support/oracle/linear.h"
#include "tests/support/weights.h"

namespace nibble {
namespace {

using ops::WeightFormat;
using test::DeviceTensor;
using test::TestTensor;
using test::TestWeight;

TEST(Linears, AreTheirLinearsOneByOne) {
  test::TestContext context;
  Rng rng(171);
  const TestWeight a = test::random_weight(rng, WeightFormat::nvfp4, 48, 96);
  const TestWeight b = test::random_weight(rng, WeightFormat::bf16, 48, 96);
  for (const int64_t t : test::kTokenCounts) {
    const TestTensor x = TestTensor::normal(rng, {t, 96});
    TestTensor ya({t, 48}), yb({t, 48}), fused({t, 48}), expected_a({t, 48}), expected_b({t, 48});
    const ops::LinearOutput both[] = {{&a.linear, ya.view}, {&b.linear, yb.view}};
    ops::linears(context.cx, x.view, both);
    ops::linear_swiglu(context.cx, x.view, a.linear, b.linear, fused.view);
    ops::linear(context.cx, x.view, a.linear, expected_a.view);
    ops::linear(context.cx, x.view, b.linear, expected_b.view);
    test::expect_same_bits(ya.view, expected_a.view, "a");
    test::expect_same_bits(yb.view, expected_b.view, "b");
    ops::swiglu(context.cx, expected_a.view, expected_b.view, expected_a.view);
    test::expect_same_bits(fused.view, expected_a.view, "swiglu");
  }
}

// Row counts around every border of the kernels.
const std::vector<int64_t> kCudaTokens = {1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 127, 128, 129, 300};

struct Case {
  WeightFormat format;
  int64_t out, in;
  bool by_channel = false;
};
// Tiles and pairs that are full, cut and alone; the micro models' sizes; more columns than eight slices hold at a time.
const std::vector<Case> kCudaCases = {
    {WeightFormat::nvfp4, 96, 64},   {WeightFormat::nvfp4, 33, 272},     {WeightFormat::nvfp4, 1, 16},
    {WeightFormat::nvfp4, 512, 256}, {WeightFormat::nvfp4, 272, 5136},   {WeightFormat::bf16, 96, 64},
    {WeightFormat::bf16, 33, 272},   {WeightFormat::bf16, 256, 1040},    {WeightFormat::fp8, 96, 64},
    {WeightFormat::fp8, 33, 272},    {WeightFormat::fp8, 49, 816, true},
};

TestWeight weight_of(Rng& rng, const Case& c) {
  return c.by_channel ? test::random_fp8_by_channel(rng, c.out, c.in) : test::random_weight(rng, c.format, c.out, c.in);
}

// Sums as any order of f32 additions may give them (test::linear_bound).
void expect_product(const TestTensor& y, const oracle::Product<double>& expected, int64_t in, const char* what) {
  for (size_t i = 0; i < expected.y.size(); ++i) {
    const double got = y.values()[i], error = std::abs(got - expected.y[i]);
    ASSERT_TRUE(error <= test::linear_bound(in, expected.magnitudes[i]))
        << what << " " << i << ": expected " << expected.y[i] << ", got " << got;
  }
}

TEST(Linears, MeetTheOracleOnCuda) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(172);
  for (const Case& c : kCudaCases) {
    SCOPED_TRACE(fmt::format("format {} [{},{}]", static_cast<int>(c.format), c.out, c.in));
    const TestWeight w = weight_of(rng, c);
    std::vector<Buffer> buffers;
    const auto on_device = ops::linear_to_device(gpu.cx, w.linear, buffers);
    ASSERT_TRUE(on_device.ok()) << on_device.status().text();
    for (const int64_t t : kCudaTokens) {
      const TestTensor x = test::to_bf16(TestTensor::normal(rng, {t, c.in}));
      DeviceTensor dx(gpu, x), y(gpu, TestTensor({t, c.out})), y16(gpu, TestTensor({t, c.out}, DType::bf16));
      const ops::LinearOutput outputs[] = {{&*on_device, y.view}, {&*on_device, y16.view}};
      ops::linears(gpu.cx, dx.view, outputs);
      const auto expected =
          oracle::linear(test::to_f32(x).doubles(), w.decoded, static_cast<size_t>(c.in), w.factors());
      const TestTensor& got = y.fetch();
      expect_product(got, expected, c.in, fmt::format("T {}: y", t).c_str());
      const TestTensor& rounded = y16.fetch();
      for (int64_t i = 0; i < t * c.out; ++i) {
        ASSERT_EQ(rounded.view.bf16()[i], f32_to_bf16(got.view.f32()[i])) << "rounded once";
      }
    }
  }
}

TEST(Linears, SwigluMeetsTheOracleOnCuda) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(173);
  for (const WeightFormat format : {WeightFormat::nvfp4, WeightFormat::bf16, WeightFormat::fp8}) {
    TestWeight gate = test::random_weight(rng, format, 200, 272), up = test::random_weight(rng, format, 200, 272);
    // Sums of about one, where SiLU bends.
    gate.linear.tensor_scale = up.linear.tensor_scale = format == WeightFormat::nvfp4 ? 0.0003f : 0.0004f;
    if (format == WeightFormat::bf16) gate.linear.tensor_scale = up.linear.tensor_scale = 1;
    std::vector<Buffer> buffers;
    const auto dgate = ops::linear_to_device(gpu.cx, gate.linear, buffers);
    const auto dup = ops::linear_to_device(gpu.cx, up.linear, buffers);
    ASSERT_TRUE(dgate.ok() && dup.ok());
    for (const int64_t t : kCudaTokens) {
      const TestTensor x = test::to_bf16(TestTensor::normal(rng, {t, 272}));
      DeviceTensor dx(gpu, x), y(gpu, TestTensor({t, 200}, DType::bf16));
      ops::linear_swiglu(gpu.cx, dx.view, *dgate, *dup, y.view);
      const auto xs = test::to_f32(x).doubles();
      const auto g = oracle::linear(xs, gate.decoded, 272, gate.factors()).y;
      const auto u = oracle::linear(xs, up.decoded, 272, up.factors()).y;
      std::vector<double> expected(g.size());
      for (size_t i = 0; i < g.size(); ++i) expected[i] = g[i] / (1 + std::exp(-g[i])) * u[i];
      test::expect_close(test::to_f32(y.fetch()), expected, test::kBf16Rounding, fmt::format("T {}", t).c_str());
    }
  }
}

// What only products read may be written in the order in which they read.
TEST(Linears, InputsInTheirOwnOrderGiveTheSameOnCuda) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  constexpr int64_t kHidden = 256, kOut = 300;
  Rng rng(177);
  for (const WeightFormat format : {WeightFormat::nvfp4, WeightFormat::bf16}) {
    for (const int64_t inner : {128, 400, 640}) {
      TestWeight weights[] = {test::random_weight(rng, WeightFormat::nvfp4, inner, kHidden),
                              test::random_weight(rng, WeightFormat::nvfp4, inner, kHidden),
                              test::random_weight(rng, format, kOut, inner)};
      std::vector<Buffer> buffers;
      std::vector<ops::Linear> on_device;
      for (TestWeight& w : weights) {
        if (w.linear.format == WeightFormat::nvfp4) w.linear.tensor_scale = 0.0003f;  // sums of about one
        auto linear = ops::linear_to_device(gpu.cx, w.linear, buffers);
        ASSERT_TRUE(linear.ok());
        on_device.push_back(*linear);
      }
      const ops::Linear &gate = on_device[0], &up = on_device[1], &down = on_device[2];
      const DeviceTensor gain(gpu, TestTensor::normal(rng, {kHidden}));
      for (const int64_t t : {1, 17, 33, 64, 100, 128, 129, 300, 512}) {
        const Arena::Scope scope(gpu.cx.arena);
        const TestTensor h = TestTensor::normal(rng, {t, kHidden});
        // The whole way of an MLP: a norm, gate and up, down.
        const auto mlp = [&](Tensor n, Tensor m, const Tensor& y) {
          DeviceTensor residual(gpu, h);
          ops::add_rms_norm(gpu.cx, {}, gain.view, 1e-6f, residual.view, n);
          ops::linear_swiglu(gpu.cx, n, gate, up, m);
          const ops::LinearOutput outputs[] = {{&down, y}};
          ops::linears(gpu.cx, m, outputs);
          ASSERT_TRUE(gpu.stream->wait().ok());
        };
        DeviceTensor y(gpu, TestTensor({t, kOut}, DType::bf16)), expected(gpu, TestTensor({t, kOut}, DType::bf16));
        const auto plain = [&](int64_t columns) { return gpu.cx.arena.take(DType::bf16, {t, columns}); };
        mlp(plain(kHidden), plain(inner), expected.view);
        mlp(ops::inputs_of(gpu.cx, t, {&gate, &up}), ops::inputs_of(gpu.cx, t, {&down}), y.view);
        test::expect_same_bits(y.fetch().view, expected.fetch().view,
                               fmt::format("format {} inner {} T {}", static_cast<int>(format), inner, t).c_str());
      }
    }
  }
}

TEST(Linears, RowsOfSmallBatchesKeepTheirBitsOnCuda) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(174);
  for (const Case& c : kCudaCases) {
    const TestWeight w = weight_of(rng, c);
    std::vector<Buffer> buffers;
    const auto on_device = ops::linear_to_device(gpu.cx, w.linear, buffers);
    ASSERT_TRUE(on_device.ok());
    DeviceTensor x(gpu, test::to_bf16(TestTensor::normal(rng, {64, c.in})));
    DeviceTensor alone(gpu, TestTensor({64, c.out})), together(gpu, TestTensor({64, c.out}));
    for (int64_t t = 0; t < 64; ++t) {
      const ops::LinearOutput one[] = {{&*on_device, alone.view.rows(t, t + 1)}};
      ops::linears(gpu.cx, x.view.rows(t, t + 1), one);
    }
    const Tensor expected = alone.fetch().view;
    for (const int64_t piece : {2, 8, 11, 16, 32, 64}) {
      for (int64_t t = 0; t < 64; t += piece) {
        const int64_t end = std::min<int64_t>(t + piece, 64);
        const ops::LinearOutput some[] = {{&*on_device, together.view.rows(t, end)}};
        ops::linears(gpu.cx, x.view.rows(t, end), some);
      }
      test::expect_same_bits(together.fetch().view, expected, fmt::format("{} rows at a time", piece).c_str());
    }
  }
}

// A delta-rule layer's projections: large ones packed, small ones not.
TEST(Linears, FormatsOfOneCallKeepTheirBitsOnCuda) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(176);
  const TestWeight weights[] = {
      test::random_weight(rng, WeightFormat::nvfp4, 2304, 272), test::random_weight(rng, WeightFormat::nvfp4, 33, 272),
      test::random_weight(rng, WeightFormat::bf16, 17, 272), test::random_weight(rng, WeightFormat::fp8, 40, 272)};
  std::vector<Buffer> buffers;
  std::vector<ops::Linear> on_device;
  for (const TestWeight& w : weights) {
    auto linear = ops::linear_to_device(gpu.cx, w.linear, buffers);
    ASSERT_TRUE(linear.ok());
    on_device.push_back(*linear);
  }
  for (const int64_t t : {1, 3, 8, 9, 20, 64, 130, 2100}) {
    DeviceTensor x(gpu, test::to_bf16(TestTensor::normal(rng, {t, 272})));
    std::vector<DeviceTensor> alone, together;
    for (const ops::Linear& w : on_device) {
      alone.emplace_back(gpu, TestTensor({t, w.out}));
      together.emplace_back(gpu, TestTensor({t, w.out}));
    }
    std::vector<ops::LinearOutput> outputs;
    for (size_t i = 0; i < on_device.size(); ++i) {
      const ops::LinearOutput one[] = {{&on_device[i], alone[i].view}};
      ops::linears(gpu.cx, x.view, one);
      outputs.push_back({&on_device[i], together[i].view});
    }
    ops::linears(gpu.cx, x.view, outputs);
    for (size_t i = 0; i < on_device.size(); ++i) {
      const std::string what = fmt::format("T {}, output {}", t, i);
      const TestTensor &got = together[i].fetch(), &expected = alone[i].fetch();
      if (t <= 64) {
        test::expect_same_bits(got.view, expected.view, what.c_str());
      } else {  // small outputs have another kernel than large ones, which adds in another order
        test::expect_close(got, expected.doubles(), test::kBf16Rounding, what.c_str());
      }
    }
  }
}

// Outputs of one call with more than 16 rows, where the GPU chooses how blocks share rows, slices and inputs: by how
// many rows and columns there are.
struct Outputs {
  std::vector<int64_t> rows;
  int64_t in;
  bool swiglu = false;
};
const std::vector<Outputs> kWideCases = {{{1, 33, 4, 200}, 272},
                                         {{1040, 100}, 5136},
                                         {{3000, 64, 1000, 17}, 1040},
                                         {{26000}, 1040},
                                         {{60001}, 144},
                                         {{24, 24}, 2064, true},
                                         {{200, 200}, 1040, true},
                                         {{5000, 5000}, 144, true},
                                         {{13000, 13000}, 1040, true}};

TEST(Linears, ManyOutputsOfSmallBatchesKeepTheirBitsOnCuda) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(176);
  constexpr int64_t kRows = 128;
  for (const Outputs& c : kWideCases) {
    SCOPED_TRACE(fmt::format("{} outputs, [{},{}]{}", c.rows.size(), c.rows[0], c.in, c.swiglu ? " swiglu" : ""));
    std::vector<Buffer> buffers;
    std::vector<ops::Linear> weights;
    std::vector<DeviceTensor> alone, together;
    for (const int64_t rows : c.rows) {
      TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, rows, c.in);
      if (c.swiglu) w.linear.tensor_scale = 0.0002f;  // sums of about one, where SiLU bends
      auto on_device = ops::linear_to_device(gpu.cx, w.linear, buffers);
      ASSERT_TRUE(on_device.ok() && gpu.stream->wait().ok());
      weights.push_back(std::move(*on_device));
      const DType type = weights.size() % 2 == 1 ? DType::bf16 : DType::f32;
      alone.emplace_back(gpu, TestTensor({kRows, rows}, type));
      together.emplace_back(gpu, TestTensor({kRows, rows}, type));
    }
    DeviceTensor x(gpu, test::to_bf16(TestTensor::normal(rng, {kRows, c.in})));
    const auto run = [&](const std::vector<DeviceTensor>& y, int64_t begin, int64_t end) {
      if (c.swiglu) {
        Tensor part = y[0].view.rows(begin, end);
        return ops::linear_swiglu(gpu.cx, x.view.rows(begin, end), weights[0], weights[1], part);
      }
      std::vector<ops::LinearOutput> outputs;
      for (size_t i = 0; i < y.size(); ++i) outputs.push_back({&weights[i], y[i].view.rows(begin, end)});
      ops::linears(gpu.cx, x.view.rows(begin, end), outputs);
    };
    for (int64_t t = 0; t < kRows; ++t) run(alone, t, t + 1);
    const size_t results = c.swiglu ? 1 : c.rows.size();
    for (const int64_t piece : {17, 32, 40, 64}) {
      for (int64_t t = 0; t < kRows; t += piece) run(together, t, std::min(t + piece, kRows));
      for (size_t i = 0; i < results; ++i) {
        test::expect_same_bits(together[i].fetch().view, alone[i].fetch().view, fmt::format("{} rows", piece).c_str());
      }
    }
    // Beyond, sums may be added in another order, and both are rounded.
    constexpr test::Tolerance kBothRounded{"both_rounded", 2 * test::kBf16Rounding.relative};
    for (const int64_t rows : {65, 100, 128}) {
      run(together, 0, rows);
      for (size_t i = 0; i < results; ++i) {
        const auto as_f32 = [](const TestTensor& y) {
          return y.view.dtype() == DType::bf16 ? test::to_f32(y) : y.copy();
        };
        test::expect_close(as_f32(together[i].fetch()), as_f32(alone[i].fetch()).doubles(), kBothRounded,
                           fmt::format("T {}", rows).c_str());
      }
    }
  }
}

bool multiplies_nvfp4(const test::CudaContext& gpu) {
  const auto info = open_device(gpu.cx.device);
  return info.ok() && info->architecture / 10 == 12;
}

TEST(Linears, WhatHasNoKernelIsRefusedAtTheDoor) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(175);
  std::vector<Buffer> buffers;
  TestWeight w = test::random_weight(rng, WeightFormat::f32, 16, 16);
  EXPECT_EQ(ops::linear_to_device(gpu.cx, w.linear, buffers).status().code(), Code::unsupported);
  w = test::random_weight(rng, WeightFormat::bf16, 16, 17);
  EXPECT_EQ(ops::linear_to_device(gpu.cx, w.linear, buffers).status().code(), Code::unsupported);
  w = test::random_weight(rng, WeightFormat::nvfp4, 16, 16);
  w.linear.inputs = ops::InputRounding::nvfp4_token;
  if (!multiplies_nvfp4(gpu)) {
    EXPECT_EQ(ops::linear_to_device(gpu.cx, w.linear, buffers).status().code(), Code::unsupported);
  }
  w = test::random_weight(rng, WeightFormat::fp8, 16, 16);
  w.linear.inputs = ops::InputRounding::fp8;
  EXPECT_EQ(ops::linear_to_device(gpu.cx, w.linear, buffers).status().code(), Code::unsupported);
  EXPECT_TRUE(buffers.empty());
}

}  // namespace
}  // namespace nibble
