// The products of many rows where no warpgroups multiply, on whatever GPU is there.
#include "ops/linear/linears_cuda.h"
#include "tests/support/cuda_test.h"
#include "tests/support/weights.h"

namespace nibble {
namespace {

using ops::WeightFormat;
using test::DeviceTensor;
using test::TestTensor;

TEST(FewRows, PiecesOfManyRowsHaveTheBitsOfEach) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(181);
  for (const WeightFormat format : {WeightFormat::nvfp4, WeightFormat::bf16, WeightFormat::fp8}) {
    const test::TestWeight weights[] = {test::random_weight(rng, format, 200, 272),
                                        test::random_weight(rng, format, 200, 272)};
    std::vector<Buffer> buffers;
    const auto a = ops::linear_to_device(gpu.cx, weights[0].linear, buffers);
    const auto b = ops::linear_to_device(gpu.cx, weights[1].linear, buffers);
    ASSERT_TRUE(a.ok() && b.ok());
    for (const bool swiglu : {false, true}) {
      for (const int64_t t : {65, 128, 301}) {
        DeviceTensor x(gpu, test::to_bf16(TestTensor::normal(rng, {t, 272})));
        DeviceTensor whole(gpu, TestTensor({t, 200})), second(gpu, TestTensor({t, 200})),
            pieces(gpu, TestTensor({t, 200}));
        const ops::LinearOutput all[] = {{&*a, whole.view}, {&*b, swiglu ? Tensor() : second.view}};
        ops::few_rows_cuda(gpu.cx, x.view, all, swiglu);
        for (int64_t begin = 0; begin < t; begin += ops::kFewRows) {
          const int64_t end = std::min(begin + ops::kFewRows, t);
          const ops::LinearOutput some[] = {{&*a, pieces.view.rows(begin, end)}, {&*b, {}}};
          ops::few_rows_cuda(gpu.cx, x.view.rows(begin, end), {some, swiglu ? size_t{2} : 1}, swiglu);
        }
        const Tensor expected = pieces.fetch().view;
        test::expect_same_bits(whole.fetch().view, expected, fmt::format("T {} swiglu {}", t, swiglu).c_str());
      }
    }
  }
}

}  // namespace
}  // namespace nibble
