#include "ops/norm/add_rms_norm.h"

#include "ops/activation/add.h"
#include "ops/norm/rms_norm.h"
#include "tests/support/cuda_test.h"
#include "tests/support/oracle/norm.h"

namespace nibble {
namespace {

using test::DeviceTensor;
using test::TestTensor;

constexpr float kEps = 1e-6f;

TEST(AddRmsNorm, IsTheAdditionAndThenTheNorm) {
  test::TestContext context;
  Rng rng(21);
  for (const bool adds : {false, true}) {
    TestTensor h = TestTensor::normal(rng, {3, 40}), y = TestTensor::normal(rng, {3, 40}), n({3, 40}),
               expected({3, 40});
    const TestTensor w = TestTensor::normal(rng, {40});
    TestTensor sum = h.copy();
    if (adds) ops::add(context.cx, y.view, sum.view);
    ops::rms_norm(context.cx, sum.view, w.view, kEps, ops::Gain::one_plus, expected.view);
    ops::add_rms_norm(context.cx, adds ? y.view : Tensor(), w.view, kEps, h.view, n.view);
    test::expect_same_bits(h.view, sum.view, "h");
    test::expect_same_bits(n.view, expected.view, "n");
  }
}

TEST(AddRmsNorm, MeetsTheOracleOnCuda) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(22);
  // Widths of one, two and four turns of a block, those of the real models and the micro models among them.
  for (const int64_t width : {4, 64, 100, 1024, 4096, 5120, 9216}) {
    for (const int64_t rows : {1, 3, 70}) {
      for (const bool adds : {false, true}) {
        const TestTensor h = TestTensor::normal(rng, {rows, width}, 3), w = TestTensor::normal(rng, {width});
        const TestTensor y = test::to_bf16(TestTensor::normal(rng, {rows, width}));
        std::vector<double> sum = h.doubles();
        const std::vector<double> more = test::to_f32(y).doubles();
        for (size_t i = 0; adds && i < sum.size(); ++i) sum[i] += more[i];
        DeviceTensor dh(gpu, h), dw(gpu, w), dy(gpu, y), n(gpu, TestTensor({rows, width}, DType::bf16));
        ops::add_rms_norm(gpu.cx, adds ? dy.view : Tensor(), dw.view, kEps, dh.view, n.view);
        test::expect_close(dh.fetch(), sum, test::kF32Op, "h");
        test::expect_close(test::to_f32(n.fetch()), oracle::rms_norm(sum, w.doubles(), kEps, true), test::kBf16Rounding,
                           "n");
      }
    }
  }
}

}  // namespace
}  // namespace nibble
