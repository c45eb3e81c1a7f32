// What op tests share: tensors between guard bytes that start as NaN, random inputs, comparison with an oracle.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "base/rng.h"
#include "tensor/context.h"
#include "tests/support/targets.h"
#include "tests/support/tolerance.h"

namespace nibble::test {

/// Token counts at and around the borders where kernels change their route.
inline const std::vector<int64_t> kTokenCounts = {0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 130, 200};

/// A tensor between guard bytes that starts as 0xFF bytes: NaN in every float type. `misalign` shifts its first byte.
class TestTensor {
 public:
  TestTensor() = default;
  explicit TestTensor(const Shape& shape, DType dtype = DType::f32, size_t misalign = 0)
      : bytes_(static_cast<size_t>(shape.elements()) * size_of(dtype)),
        start_(kGuard + misalign),
        memory_(start_ + bytes_ + kGuard),
        view(memory_.data() + start_, dtype, shape) {
    std::memset(memory_.data(), kGuardByte, memory_.bytes());
    std::memset(view.raw(), 0xFF, bytes_);
  }
  static TestTensor normal(Rng& rng, const Shape& shape, float scale = 1) {
    TestTensor tensor(shape);
    for (float& x : tensor.values()) x = scale * rng.normal();
    return tensor;
  }
  static TestTensor uniform(Rng& rng, const Shape& shape, float low, float high) {
    TestTensor tensor(shape);
    for (float& x : tensor.values()) x = rng.uniform(low, high);
    return tensor;
  }

  std::span<float> values() const { return view.f32_span(); }
  std::vector<double> doubles() const { return {values().begin(), values().end()}; }
  std::vector<std::byte> bytes() const {
    const auto* p = static_cast<const std::byte*>(view.raw());
    return {p, p + bytes_};
  }
  TestTensor copy() const {
    TestTensor other(view.shape(), view.dtype());
    if (bytes_ > 0) std::memcpy(other.view.raw(), view.raw(), bytes_);
    return other;
  }
  bool guards_intact() const {
    const auto intact = [](std::byte b) { return b == std::byte{kGuardByte}; };
    const std::byte* p = memory_.data();
    return std::all_of(p, p + start_, intact) && std::all_of(p + start_ + bytes_, p + memory_.bytes(), intact);
  }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr unsigned char kGuardByte = 0xA5;
  size_t bytes_ = 0, start_ = 0;
  Buffer memory_;

 public:
  Tensor view;
};

/// Scales every row of n elements to length 1.
inline void to_unit_rows(const TestTensor& x, size_t n) {
  const auto values = x.values();
  for (size_t row = 0; row < values.size(); row += n) {
    double squares = 0;
    for (size_t i = 0; i < n; ++i) squares += static_cast<double>(values[row + i]) * values[row + i];
    for (size_t i = 0; i < n; ++i) values[row + i] /= static_cast<float>(std::sqrt(squares));
  }
}

/// Compares with the oracle and prints how far the worst element is, whether or not it passes.
inline void expect_close(const TestTensor& actual, const std::vector<double>& expected, const Tolerance& tolerance,
                         const char* what) {
  EXPECT_TRUE(actual.guards_intact()) << what << " was written out of bounds";
  const auto values = actual.values();
  ASSERT_EQ(values.size(), expected.size()) << what;
  double squares = 0;
  for (const double e : expected) squares += e * e;
  const double rms = expected.empty() ? 0 : std::sqrt(squares / static_cast<double>(expected.size()));
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(static_cast<double>(values[i]) - expected[i]), scale = std::abs(expected[i]) + rms;
    // Written so that a NaN fails.
    if (!(error <= tolerance.relative * scale)) {
      FAIL() << what << "[" << i << "]: expected " << expected[i] << ", got " << values[i] << ", beyond "
             << tolerance.name;
    }
    if (scale > 0) worst = std::max(worst, error / scale);
  }
  ::testing::Test::RecordProperty(what, std::to_string(worst));
}

/// Bit for bit, NaN included.
inline void expect_same_bits(const Tensor& a, const Tensor& b, const char* what) {
  ASSERT_EQ(a.shape(), b.shape()) << what;
  const auto *x = static_cast<const std::byte*>(a.raw()), *y = static_cast<const std::byte*>(b.raw());
  const auto [at, other] = std::mismatch(x, x + a.bytes(), y);
  EXPECT_EQ(at, x + a.bytes()) << what << " differ from byte " << at - x << " on";
}

/// The inputs of an op must be what they were.
class Unchanged {
 public:
  explicit Unchanged(std::initializer_list<const TestTensor*> tensors) {
    for (const TestTensor* tensor : tensors) kept_.push_back({tensor, tensor->bytes()});
  }
  ~Unchanged() {
    for (const auto& [tensor, bytes] : kept_) EXPECT_EQ(tensor->bytes(), bytes) << "an input was written";
  }

 private:
  std::vector<std::pair<const TestTensor*, std::vector<std::byte>>> kept_;
};

/// One context with its own pool.
struct TestContext {
  explicit TestContext(int threads = 1, Numeric numeric = Numeric::exact) : pool(threads), cx(pool, numeric) {}
  ThreadPool pool;
  Context cx;
};

}  // namespace nibble::test
