// The short convolution as a naive loop, written from ops/conv/conv_silu.h.
#pragma once

#include <vector>

#include "tests/support/oracle/norm.h"

namespace nibble::oracle {

/// mix [T,C], w [C,4], state [3,C]; the state is updated in place.
template <class F>
std::vector<F> conv_silu(const std::vector<F>& mix, const std::vector<F>& w, std::vector<F>& state) {
  const size_t channels = state.size() / 3;
  std::vector<F> all = state, y(mix.size());
  all.insert(all.end(), mix.begin(), mix.end());
  for (size_t i = 0; i < mix.size(); ++i) {
    F pre = 0;
    for (size_t j = 0; j < 4; ++j) pre += w[i % channels * 4 + j] * all[i + j * channels];
    y[i] = pre * logistic(pre);
  }
  state.assign(all.end() - static_cast<std::ptrdiff_t>(state.size()), all.end());
  return y;
}

struct ConvVjp {
  std::vector<double> dmix, dw;  // dw is what is added
};

inline ConvVjp conv_silu_vjp(const std::vector<double>& dy, const std::vector<double>& mix,
                             const std::vector<double>& w, const std::vector<double>& state) {
  const size_t channels = state.size() / 3;
  std::vector<double> all = state, d_all(state.size() + mix.size());
  all.insert(all.end(), mix.begin(), mix.end());
  ConvVjp vjp{{}, std::vector<double>(w.size())};
  for (size_t i = 0; i < mix.size(); ++i) {
    const size_t taps = i % channels * 4;
    double pre = 0;
    for (size_t j = 0; j < 4; ++j) pre += w[taps + j] * all[i + j * channels];
    const double d = dy[i] * silu_slope(pre);
    for (size_t j = 0; j < 4; ++j) {
      d_all[i + j * channels] += d * w[taps + j];
      vjp.dw[taps + j] += d * all[i + j * channels];
    }
  }
  vjp.dmix.assign(d_all.begin() + static_cast<std::ptrdiff_t>(state.size()), d_all.end());
  return vjp;
}

}  // namespace nibble::oracle
