#include "tests/support/gradcheck.h"

#include <gtest/gtest-spi.h>

namespace nibble::test {
namespace {

const std::vector<double> kX = {0.3, -1.2, 0.7, 2.0}, kDy = {1.0, 0.5, -0.25, 2.0};

template <class F>
F squares(const std::vector<F>& x) {
  std::vector<F> y;
  for (const F& v : x) y.push_back(v * v);
  return contract(kDy, y);
}

std::vector<double> slopes(double factor) {
  std::vector<double> dx;
  for (size_t i = 0; i < kX.size(); ++i) dx.push_back(factor * kDy[i] * kX[i]);
  return dx;
}

TEST(GradCheck, PassesTheRightGradientOfEveryInput) {
  const std::vector<double> w = {0.1, 0.2, 0.3, 0.4};
  const auto loss = [](const auto& in) { return squares(in[0]) + contract(kX, in[1]); };
  expect_gradients({{"x", kX, slopes(2)}, {"w", w, kX}}, loss);
  EXPECT_NEAR(complex_slope({{"x", kX, {}}, {"w", w, {}}}, 0, {1, 0, 0, 1}, loss), 0.6 + 8.0, 1e-14);
}

TEST(GradCheck, RefusesAWrongOne) {
  EXPECT_NONFATAL_FAILURE(
      expect_gradients({{"x", kX, slopes(2 + 1e-10)}}, [](const auto& in) { return squares(in[0]); }), "dx");
  std::vector<double> nan = slopes(2);
  nan[2] = NAN;
  EXPECT_NONFATAL_FAILURE(expect_gradients({{"x", kX, nan}}, [](const auto& in) { return squares(in[0]); }), "[2]");
}

TEST(GradCheck, RoundingLetsTheTangentPass) {
  const auto loss = [](const auto& in) {
    std::decay_t<decltype(in[0])> y;
    for (const auto& x : in[0]) y.push_back(straight_through(x, std::round(std::real(x))));
    return contract(kDy, y);
  };
  expect_gradients({{"x", kX, kDy}}, loss);
  EXPECT_EQ(loss(std::vector<std::vector<double>>{kX}), -0.5 - 0.25 + 4.0);
}

}  // namespace
}  // namespace nibble::test
