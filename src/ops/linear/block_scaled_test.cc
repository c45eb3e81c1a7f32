// Products of NVFP4 with NVFP4 on a GPU: where the hardware has them as they are served, and everywhere with the one
// instruction emulated.
#include "ops/linear/emulated_product.h"
#include "ops/quant/fake_inputs.h"
#include "ops/quant/nvfp4.h"
#include "tests/support/cuda_test.h"
#include "tests/support/oracle/linear.h"
#include "tests/support/weights.h"

namespace nibble {
namespace {

using ops::InputRounding;
using ops::WeightFormat;
using test::DeviceTensor;
using test::TestTensor;
using test::TestWeight;

// Row counts around the borders of tiles of 16 and 128.
const std::vector<int64_t> kTokens = {1, 2, 8, 15, 16, 17, 64, 65, 127, 128, 129, 300};

// How products are called, and how weights get there.
struct Way {
  std::function<void(Context&, const Tensor&, std::span<const ops::LinearOutput>, bool swiglu)> products;
  std::function<Result<ops::Linear>(Context&, const ops::Linear&, std::vector<Buffer>&)> upload;
};

void meet_the_oracle(test::CudaContext& gpu, const Way& way) {
  test::TestContext cpu;
  Rng rng(176);
  for (const InputRounding rounding : {InputRounding::nvfp4, InputRounding::nvfp4_token}) {
    for (const auto& [out, in] : {std::pair{96, 64}, {33, 272}, {1, 16}, {272, 5136}, {600, 128}}) {
      SCOPED_TRACE(fmt::format("rounding {} [{},{}]", static_cast<int>(rounding), out, in));
      TestWeight gate = test::random_weight(rng, WeightFormat::nvfp4, out, in);
      TestWeight up = test::random_weight(rng, WeightFormat::nvfp4, out, in);
      TestWeight other = test::random_weight(rng, WeightFormat::nvfp4, 40, in);
      for (TestWeight* w : {&gate, &up, &other}) {
        w->linear.inputs = rounding;
        w->linear.input_scale = 0.0009f;  // cuts the largest values
        w->linear.tensor_scale = 0.0003f;
      }
      std::vector<Buffer> buffers;
      const auto dgate = way.upload(gpu.cx, gate.linear, buffers), dup = way.upload(gpu.cx, up.linear, buffers),
                 dother = way.upload(gpu.cx, other.linear, buffers);
      ASSERT_TRUE(dgate.ok() && dup.ok() && dother.ok());
      for (const int64_t t : kTokens) {
        SCOPED_TRACE(fmt::format("T {}", t));
        const TestTensor x = test::to_bf16(TestTensor::normal(rng, {t, in})), wide = test::to_f32(x);
        TestTensor rounded({t, in});
        if (rounding == InputRounding::nvfp4) {
          ops::nvfp4_fake(cpu.cx, wide.view, {gate.linear.input_scale, false}, rounded.view);
        } else {
          ops::nvfp4_fake_rows(cpu.cx, wide.view, rounded.view);
        }
        DeviceTensor dx(gpu, x), y(gpu, TestTensor({t, out})), y16(gpu, TestTensor({t, out}, DType::bf16));
        DeviceTensor y_other(gpu, TestTensor({t, 40})), act(gpu, TestTensor({t, out}, DType::bf16));
        const ops::LinearOutput outputs[] = {{&*dgate, y.view}, {&*dother, y_other.view}, {&*dgate, y16.view}};
        const ops::LinearOutput both[] = {{&*dgate, act.view}, {&*dup, {}}};
        way.products(gpu.cx, dx.view, outputs, false);
        way.products(gpu.cx, dx.view, both, true);

        const auto columns = static_cast<size_t>(in);
        const auto expect = [&](const TestTensor& got, const oracle::Product<double>& expected) {
          for (size_t i = 0; i < expected.y.size(); ++i) {
            ASSERT_NEAR(got.values()[i], expected.y[i], test::linear_bound(in, expected.magnitudes[i])) << i;
          }
        };
        const auto g = oracle::linear(rounded.doubles(), gate.decoded, columns, gate.factors());
        const auto u = oracle::linear(rounded.doubles(), up.decoded, columns, up.factors());
        const TestTensor& got = y.fetch();
        expect(got, g);
        expect(y_other.fetch(), oracle::linear(rounded.doubles(), other.decoded, columns, other.factors()));
        const TestTensor& narrow = y16.fetch();
        for (int64_t i = 0; i < t * out; ++i) {
          ASSERT_EQ(narrow.view.bf16()[i], f32_to_bf16(got.view.f32()[i])) << "rounded once";
        }
        std::vector<double> expected(g.y.size());
        for (size_t i = 0; i < expected.size(); ++i) expected[i] = g.y[i] / (1 + std::exp(-g.y[i])) * u.y[i];
        test::expect_close(test::to_f32(act.fetch()), expected, test::kBf16Rounding, "swiglu");
      }
    }
  }
}

void keep_the_bits_of_rows(test::CudaContext& gpu, const Way& way) {
  Rng rng(177);
  TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, 272, 1040);
  w.linear.inputs = InputRounding::nvfp4_token;
  std::vector<Buffer> buffers;
  const auto on_device = way.upload(gpu.cx, w.linear, buffers);
  ASSERT_TRUE(on_device.ok());
  DeviceTensor x(gpu, test::to_bf16(TestTensor::normal(rng, {200, 1040})));
  DeviceTensor alone(gpu, TestTensor({200, 272})), together(gpu, TestTensor({200, 272}));
  for (int64_t t = 0; t < 200; ++t) {
    const ops::LinearOutput one[] = {{&*on_device, alone.view.rows(t, t + 1)}};
    way.products(gpu.cx, x.view.rows(t, t + 1), one, false);
  }
  const Tensor expected = alone.fetch().view;
  for (const int64_t piece : {8, 16, 50, 200}) {
    for (int64_t t = 0; t < 200; t += piece) {
      const int64_t end = std::min<int64_t>(t + piece, 200);
      const ops::LinearOutput some[] = {{&*on_device, together.view.rows(t, end)}};
      way.products(gpu.cx, x.view.rows(t, end), some, false);
    }
    test::expect_same_bits(together.fetch().view, expected, fmt::format("{} rows at a time", piece).c_str());
  }
}

// A row with NaN is NaN, a row of zeros or of numbers too small for a scale is zero; others do not see them.
void keep_odd_rows_apart(test::CudaContext& gpu, const Way& way) {
  Rng rng(178);
  TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, 24, 96);
  w.linear.inputs = InputRounding::nvfp4_token;
  std::vector<Buffer> buffers;
  const auto on_device = way.upload(gpu.cx, w.linear, buffers);
  ASSERT_TRUE(on_device.ok());
  TestTensor host = TestTensor::normal(rng, {4, 96});
  for (size_t k = 0; k < 96; ++k) {
    host.values()[96 + k] = 0;
    host.values()[2 * 96 + k] = 1e-38f;
  }
  host.values()[3 * 96 + 5] = std::numeric_limits<float>::quiet_NaN();
  DeviceTensor x(gpu, test::to_bf16(host)), y(gpu, TestTensor({4, 24}));
  const ops::LinearOutput outputs[] = {{&*on_device, y.view}};
  way.products(gpu.cx, x.view, outputs, false);
  const TestTensor& got = y.fetch();
  for (size_t n = 0; n < 24; ++n) {
    EXPECT_TRUE(std::isfinite(got.values()[n]));
    EXPECT_EQ(got.values()[24 + n], 0);
    EXPECT_EQ(got.values()[48 + n], 0);
    EXPECT_TRUE(std::isnan(got.values()[72 + n]));
  }
}

const Way kEmulated = {ops::block_scaled_emulated, [](Context& cx, const ops::Linear& w, std::vector<Buffer>& buffers) {
                         return ops::nvfp4_to_device(cx, w, true, buffers);
                       }};
const Way kServed = {[](Context& cx, const Tensor& x, std::span<const ops::LinearOutput> outputs, bool swiglu) {
                       Tensor y = outputs[0].y;
                       if (swiglu) return ops::linear_swiglu(cx, x, *outputs[0].weight, *outputs[1].weight, y);
                       ops::linears(cx, x, outputs);
                     },
                     [](Context& cx, const ops::Linear& w, std::vector<Buffer>& buffers) {
                       return ops::linear_to_device(cx, w, buffers);
                     }};

TEST(BlockScaled, AllButTheInstructionMeetsTheOracle) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  meet_the_oracle(gpu, kEmulated);
}

TEST(BlockScaled, AllButTheInstructionKeepsTheBitsOfRows) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  keep_the_bits_of_rows(gpu, kEmulated);
  keep_odd_rows_apart(gpu, kEmulated);
}

TEST(BlockScaled, MeetsTheOracle) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  if (!ops::has_block_scaled_products(gpu.cx.device)) GTEST_SKIP() << "expected compute capability 12";
  meet_the_oracle(gpu, kServed);
}

TEST(BlockScaled, KeepsTheBitsOfRows) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  if (!ops::has_block_scaled_products(gpu.cx.device)) GTEST_SKIP() << "expected compute capability 12";
  keep_the_bits_of_rows(gpu, kServed);
  keep_odd_rows_apart(gpu, kServed);
}

}  // namespace
}  // namespace nibble
