// The scalar formulas of delta_gates, shared by host and device.
#pragma once

#include <cmath>

#include "tensor/numeric.h"

namespace nibble::ops {

/// log(1 + exp(x)); above 20 the two differ by less than an f32 ulp.
NIBBLE_HD inline float softplus(float x) {
  return x > 20.0f ? x : log1pf(expf(x));
}

/// g = -exp(a_log) * softplus(a + dt_bias)
NIBBLE_HD inline float delta_decay(float a, float a_log, float dt_bias) {
  return -expf(a_log) * softplus(a + dt_bias);
}

/// 1/(1 + exp(-b)); exp(-b) may overflow to infinity, which gives the right 0.
NIBBLE_HD inline float delta_strength(float b) {
  return 1.0f / (1.0f + expf(-b));
}

/// d softplus(x) / dx
NIBBLE_HD inline float softplus_slope(float x) {
  return x > 20.0f ? 1.0f : 1.0f / (1.0f + expf(-x));
}

/// d delta_strength(b) / db = beta (1 - beta), with 1 - beta as the strength of -b: no cancellation near 1.
NIBBLE_HD inline float delta_strength_slope(float b) {
  return delta_strength(b) * delta_strength(-b);
}

}  // namespace nibble::ops
