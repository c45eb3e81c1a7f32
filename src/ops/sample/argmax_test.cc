#include "ops/sample/argmax.h"

#include <limits>

#include "ops/embed/embed_ids.h"
#include "tests/support/cuda_test.h"

namespace nibble {
namespace {

using test::DeviceTensor;
using test::TestTensor;

TestTensor ints(int64_t n, int32_t value) {
  TestTensor tensor({n}, DType::i32);
  std::fill_n(tensor.view.i32(), n, value);
  return tensor;
}

// Rows with ties, a largest value that is not allowed, the winner at either end, and infinities.
struct Rows {
  explicit Rows(int64_t vocabulary)
      : logits(TestTensor({4, vocabulary})), allowed({vocabulary}, DType::u8), expected(4) {
    Rng rng(31);
    for (float& x : logits.values()) x = rng.normal();
    std::fill_n(allowed.view.u8(), vocabulary, uint8_t{1});
    const int64_t last = vocabulary - 1, middle = vocabulary / 2;
    allowed.view.u8()[middle] = 0;
    const auto at = [&](int64_t row, int64_t i) -> float& { return logits.view.f32()[row * vocabulary + i]; };
    at(0, 0) = 50, at(0, last) = 50;
    at(1, last) = 60, at(1, middle) = 70;
    for (int64_t i = 0; i < vocabulary; ++i) at(2, i) = -std::numeric_limits<float>::infinity();
    at(3, 1) = std::numeric_limits<float>::infinity();
    expected = {0, static_cast<int32_t>(last), 0, 1};
  }
  TestTensor logits, allowed;
  std::vector<int32_t> expected;
};

TEST(Argmax, TakesTheFirstOfTheLargestThatAreAllowed) {
  test::TestContext context;
  Rows rows(101);
  TestTensor ids = ints(4, -7), position = ints(4, 10);
  ops::argmax(context.cx, rows.logits.view, rows.allowed.view, ids.view, position.view);
  for (int64_t t = 0; t < 4; ++t) {
    EXPECT_EQ(ids.view.i32()[t], rows.expected[static_cast<size_t>(t)]);
    EXPECT_EQ(position.view.i32()[t], 11);
  }
  Tensor none;
  ops::argmax(context.cx, rows.logits.view, none, ids.view, none);
  EXPECT_EQ(ids.view.i32()[1], 50) << "all may be taken where nothing says otherwise";
}

TEST(Argmax, OnCudaAsOnTheCpu) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  for (const int64_t vocabulary : {int64_t{5}, int64_t{101}, int64_t{2048}, int64_t{248320}}) {
    const Rows rows(vocabulary);
    DeviceTensor logits(gpu, rows.logits), allowed(gpu, rows.allowed), ids(gpu, ints(4, -7)),
        position(gpu, ints(4, 10));
    ops::argmax(gpu.cx, logits.view, allowed.view, ids.view, position.view);
    const int32_t* got = ids.fetch().view.i32();
    EXPECT_EQ(std::vector<int32_t>(got, got + 4), rows.expected) << vocabulary;
    EXPECT_EQ(position.fetch().view.i32()[3], 11);
  }
}

TEST(EmbedIds, CopiesRowsOnCuda) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(32);
  const TestTensor table = test::to_bf16(TestTensor::normal(rng, {50, 100}));
  TestTensor ids({3}, DType::i32);
  std::ranges::copy(std::vector<int32_t>{49, 0, 7}, ids.view.i32());
  DeviceTensor on_device(gpu, table), of(gpu, ids), y(gpu, TestTensor({3, 100}));
  ops::embed_ids(gpu.cx, of.view, on_device.view, y.view);
  const TestTensor rows = test::to_f32(table);
  const TestTensor& got = y.fetch();
  for (int64_t t = 0; t < 3; ++t) {
    const Tensor expected = rows.view.rows(ids.view.i32()[t], ids.view.i32()[t] + 1);
    test::expect_same_bits(got.view.rows(t, t + 1), expected, "row");
  }
}

}  // namespace
}  // namespace nibble
