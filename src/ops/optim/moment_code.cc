#include "ops/optim/moment_code.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nibble::ops {
namespace {

MomentCode make_code(bool with_sign) {
  MomentCode code;
  size_t count = 0;
  code.value[count++] = 0;
  code.value[count++] = 1;
  for (int i = 0; i <= 6; ++i) {
    const int steps = 1 << (with_sign ? i : i + 1);
    for (int j = 0; j < steps; ++j) {
      const auto x = static_cast<float>(std::pow(10.0, i - 6) * (0.1 + 0.9 * (j + 0.5) / steps));
      code.value[count++] = x;
      if (with_sign) code.value[count++] = -x;
    }
  }
  std::sort(code.value.begin(), code.value.end());
  for (size_t i = 0; i + 1 < code.value.size(); ++i) {
    code.midpoint[i] = static_cast<float>(0.5 * (static_cast<double>(code.value[i]) + code.value[i + 1]));
  }
  code.midpoint.back() = std::numeric_limits<float>::infinity();
  const auto search = [&](float x) {  // midpoints below x; on one, the lower code
    return static_cast<uint8_t>(std::lower_bound(code.midpoint.begin(), code.midpoint.end(), x) -
                                code.midpoint.begin());
  };
  for (uint32_t bucket = 0; bucket < MomentCode::kBuckets; ++bucket) {
    const uint32_t bits = (MomentCode::kFirst + bucket) << 16;
    code.lowest[bucket] = search(bucket == 0 ? 0 : f32_from_bits(bits));
    code.lowest[MomentCode::kBuckets + bucket] = search(-f32_from_bits(bits | 0xFFFF));
  }
  return code;
}

// Magnitudes compare like their bit patterns.
float absmax_of(const float* x, int64_t n) {
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, static_cast<int32_t>(f32_bits(x[i]) & 0x7FFFFFFF));
  return f32_from_bits(static_cast<uint32_t>(largest));
}

}  // namespace

const MomentCode& signed_moment_code() {
  static const MomentCode code = make_code(true);
  return code;
}

const MomentCode& unsigned_moment_code() {
  static const MomentCode code = make_code(false);
  return code;
}

void decode_moment(const MomentCode& code, const uint8_t* codes, float absmax, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) x[i] = code.value[codes[i]] * absmax;
}

float encode_signed_moment(const float* x, int64_t n, uint8_t* codes) {
  const MomentCode& code = signed_moment_code();
  const float absmax = absmax_of(x, n), divisor = absmax > 0 ? absmax : 1;
  for (int64_t i = 0; i < n; ++i) codes[i] = code.nearest(x[i] / divisor);
  return absmax;
}

float encode_unsigned_moment(const float* x, int64_t n, uint8_t* codes) {
  const MomentCode& code = unsigned_moment_code();
  const float absmax = absmax_of(x, n), divisor = absmax > 0 ? absmax : 1;
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t nearest = code.nearest(x[i] / divisor);
    codes[i] = nearest == 0 && x[i] != 0 ? 1 : nearest;
  }
  return absmax;
}

}  // namespace nibble::ops
