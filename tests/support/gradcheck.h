// Gradients by complex step: for analytic f, f'(x) = Im f(x + ih) / h with h = 1e-50. Nothing is subtracted, so the
// result is exact to rounding and there is no step size to tune.
//
// The function is one naive forward, templated on its scalar (double or Complex), from which everything else follows.
// It must stay analytic: compare, branch and take maxima on std::real; squares are x * x, never abs, norm or conj;
// softplus is log(1 + exp(x)); softmax subtracts the real maximum; rounding only through straight_through.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <string>
#include <vector>

namespace nibble::test {

using Complex = std::complex<double>;

constexpr double kStep = 1e-50;
/// Relative L2 between an oracle's own gradient and complex step. Measured: 3e-16 to 2e-15.
constexpr double kComplexStep = 1e-12;

/// The straight-through estimator x + stop_gradient(Q(x) - x): the value q = Q(Re x), the tangent of x.
inline double straight_through(double, double q) {
  return q;
}
inline Complex straight_through(Complex x, double q) {
  return {q, x.imag()};
}

/// sum(dy * y): the loss whose gradient is the vjp of dy.
template <class F>
F contract(const std::vector<double>& dy, const std::vector<F>& y) {
  EXPECT_EQ(dy.size(), y.size());
  F sum = 0;
  for (size_t i = 0; i < std::min(dy.size(), y.size()); ++i) sum += F(dy[i]) * y[i];
  return sum;
}

/// x + i h u; without u the tangent is zero.
inline std::vector<Complex> with_tangent(const std::vector<double>& x, const std::vector<double>& u = {}) {
  std::vector<Complex> z(x.begin(), x.end());
  for (size_t i = 0; i < u.size(); ++i) z[i].imag(kStep * u[i]);
  return z;
}

/// |a - b| / |b| over all elements; |a| where b is all zeros. NaN in either gives NaN.
inline double relative_l2(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / (size == 0 ? 1 : size));
}

/// One input of the function and what is claimed to be the loss's gradient with respect to it.
struct GradCase {
  std::string name;
  std::vector<double> x;
  std::vector<double> gradient;
};

/// dL/dx of cases[which], element by element: one forward per element. `loss` maps the inputs, in the order of the
/// cases, as const std::vector<std::vector<Complex>>& to a Complex.
template <class Loss>
std::vector<double> complex_step(const std::vector<GradCase>& cases, size_t which, const Loss& loss) {
  std::vector<std::vector<Complex>> inputs;
  for (const GradCase& c : cases) inputs.push_back(with_tangent(c.x));
  std::vector<double> gradient;
  for (Complex& x : inputs[which]) {
    x.imag(kStep);
    gradient.push_back(std::imag(Complex(loss(inputs))) / kStep);
    x.imag(0);
  }
  return gradient;
}

/// The slope of the loss along u in cases[which] = <gradient, u>: one forward, for inputs too large to go through.
template <class Loss>
double complex_slope(const std::vector<GradCase>& cases, size_t which, const std::vector<double>& u, const Loss& loss) {
  std::vector<std::vector<Complex>> inputs;
  for (size_t i = 0; i < cases.size(); ++i)
    inputs.push_back(with_tangent(cases[i].x, i == which ? u : std::vector<double>{}));
  return std::imag(Complex(loss(inputs))) / kStep;
}

/// Every claimed gradient against complex step, in relative L2 per input:
///   expect_gradients({{"x", x, dx}, {"w", w, dw}},
///                    [&](const auto& in) { return contract(dy, oracle::rms_norm(in[0], in[1], eps, true)); });
template <class Loss>
void expect_gradients(const std::vector<GradCase>& cases, const Loss& loss, double tolerance = kComplexStep) {
  for (size_t which = 0; which < cases.size(); ++which) {
    const GradCase& c = cases[which];
    ASSERT_EQ(c.gradient.size(), c.x.size()) << "d" << c.name << " does not have the shape of " << c.name;
    const std::vector<double> expected = complex_step(cases, which, loss);
    const double error = relative_l2(c.gradient, expected);
    ::testing::Test::RecordProperty("d" + c.name, std::to_string(error));
    if (error <= tolerance) continue;
    size_t worst = 0;
    double largest = -1;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double off = std::abs(c.gradient[i] - expected[i]);
      if (off <= largest) continue;
      worst = i;
      if (std::isnan(off)) break;
      largest = off;
    }
    ADD_FAILURE() << "d" << c.name << ": relative L2 " << error << " > " << tolerance << "; worst element [" << worst
                  << "]: complex step " << expected[worst] << ", got " << c.gradient[worst];
  }
}

}  // namespace nibble::test
