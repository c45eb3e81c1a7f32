#include "quantize/awq_scales.h"

#include <algorithm>
#include <cmath>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "tensor/numeric.h"

namespace nibble::quantize {
namespace {

constexpr int64_t kBlock = kNvfp4Block;
constexpr int64_t kRows = 64;  // rows whose sums are made together

float element(const Tensor& t, int64_t i) {
  return t.dtype() == DType::bf16 ? bf16_to_f32(t.bf16()[i]) : t.f32()[i];
}

// Rounds once, to the dtype of the tensor, and says what it holds then.
float store(const Tensor& t, int64_t i, double value) {
  const auto x = static_cast<float>(value);
  if (t.dtype() == DType::bf16) {
    t.bf16()[i] = f32_to_bf16(x);
    return bf16_to_f32(t.bf16()[i]);
  }
  return t.f32()[i] = x;
}

// sums[k] += |w| / (a_b + 1e-6) over rows [begin, end).
void add_rows(const Tensor& w, int64_t begin, int64_t end, double* sums) {
  const int64_t columns = w.dim(1);
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t block = 0; block < columns; block += kBlock) {
      float x[kBlock], amax = 0;
      for (int64_t i = 0; i < kBlock; ++i) {
        x[i] = std::abs(element(w, row * columns + block + i));
        amax = std::max(amax, x[i]);
      }
      for (int64_t i = 0; i < kBlock; ++i) sums[block + i] += static_cast<double>(x[i] / (amax + 1e-6f));
    }
  }
}

template <class Factor>
void scale_elements(Context& cx, const Tensor& w, const Tensor& out, const Factor& factor) {
  ops::require_cpu("awq", w);
  NIBBLE_CHECK(w.rank() == 2 && out.shape() == w.shape());
  const int64_t columns = w.dim(1);
  cx.pool.parallel_for(w.dim(0), ops::row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t k = 0; k < columns; ++k) {
        const int64_t i = row * columns + k;
        store(out, i, static_cast<double>(factor(element(w, i), row, k)));
      }
    }
  });
}

}  // namespace

std::vector<float> awq_weight_mean(Context& cx, std::span<const Tensor> readers) {
  NIBBLE_CHECK(!readers.empty());
  const int64_t columns = readers[0].dim(1);
  NIBBLE_CHECK(columns % kBlock == 0);
  std::vector<double> total(static_cast<size_t>(columns));
  int64_t rows = 0;
  for (const Tensor& w : readers) {
    NIBBLE_CHECK(w.dim(1) == columns);
    const int64_t parts = (w.dim(0) + kRows - 1) / kRows;
    std::vector<double> sums(static_cast<size_t>(parts * columns));
    cx.pool.parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        add_rows(w, p * kRows, std::min((p + 1) * kRows, w.dim(0)), sums.data() + p * columns);
      }
    });
    for (size_t i = 0; i < sums.size(); ++i) total[i % total.size()] += sums[i];
    rows += w.dim(0);
  }
  std::vector<float> mean(total.size());
  for (size_t k = 0; k < mean.size(); ++k) mean[k] = static_cast<float>(total[k] / static_cast<double>(rows));
  return mean;
}

std::vector<float> awq_candidate(std::span<const float> x_mean, std::span<const float> w_mean, int candidate) {
  NIBBLE_CHECK(candidate >= 0 && candidate < kAwqCandidates);
  const bool duo = candidate % 2 == 1;
  NIBBLE_CHECK(!duo || w_mean.size() == x_mean.size());
  const int step = candidate / 2;
  const double ratio = static_cast<double>(step) / 9;
  std::vector<double> s(x_mean.size());
  for (size_t k = 0; k < s.size(); ++k) {
    s[k] = std::pow(static_cast<double>(x_mean[k]), ratio);
    if (duo) s[k] /= std::pow(static_cast<double>(w_mean[k]), 1 - ratio) + 1e-4;
    if (s[k] < 1e-4) s[k] = 1e-4;
  }
  const auto [smallest, largest] = std::minmax_element(s.begin(), s.end());
  const double unit = s.empty() ? 1 : std::sqrt(*largest * *smallest);
  std::vector<float> scales(s.size());
  for (size_t k = 0; k < s.size(); ++k) {
    scales[k] = static_cast<float>(s[k] / unit);
    if (!std::isfinite(scales[k])) scales[k] = 1;
  }
  return scales;
}

std::vector<float> awq_fold_one_plus(const Tensor& norm, std::span<const float> s, const Tensor& folded) {
  NIBBLE_CHECK(norm.elements() == static_cast<int64_t>(s.size()) && folded.elements() == norm.elements());
  std::vector<float> effective(s.size(), 1);
  for (size_t k = 0; k < s.size(); ++k) {
    const auto i = static_cast<int64_t>(k);
    const auto w = static_cast<double>(element(norm, i)), gain = 1 + w;
    const auto after = 1 + static_cast<double>(store(folded, i, gain / static_cast<double>(s[k]) - 1));
    if (gain == 0 || after == 0) {
      store(folded, i, w);
    } else {
      effective[k] = static_cast<float>(gain / after);
    }
  }
  return effective;
}

std::vector<float> awq_fold_plain(const Tensor& norm, std::span<const float> s, const Tensor& folded) {
  NIBBLE_CHECK(norm.elements() == static_cast<int64_t>(s.size()) && folded.elements() == norm.elements());
  std::vector<float> effective(s.size(), 1);
  for (size_t k = 0; k < s.size(); ++k) {
    const auto i = static_cast<int64_t>(k);
    const auto w = static_cast<double>(element(norm, i));
    const auto after = static_cast<double>(store(folded, i, w / static_cast<double>(s[k])));
    if (w == 0 || after == 0) {
      store(folded, i, w);
    } else {
      effective[k] = static_cast<float>(w / after);
    }
  }
  return effective;
}

void awq_scale_columns(Context& cx, const Tensor& w, std::span<const float> s, const Tensor& out) {
  NIBBLE_CHECK(w.dim(1) == static_cast<int64_t>(s.size()));
  scale_elements(cx, w, out, [&](float x, int64_t, int64_t k) { return x * s[static_cast<size_t>(k)]; });
}

void awq_divide_rows(Context& cx, const Tensor& w, std::span<const float> s, const Tensor& out) {
  NIBBLE_CHECK(w.dim(0) == static_cast<int64_t>(s.size()));
  scale_elements(cx, w, out, [&](float x, int64_t row, int64_t) { return x / s[static_cast<size_t>(row)]; });
}

float awq_input_amax(std::span<const float> amax, std::span<const float> s) {
  NIBBLE_CHECK(amax.size() == s.size());
  float largest = 0;
  for (size_t k = 0; k < s.size(); ++k) largest = std::max(largest, amax[k] / s[k]);
  return largest;
}

}  // namespace nibble::quantize
