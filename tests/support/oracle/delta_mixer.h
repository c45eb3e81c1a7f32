// A delta-rule layer between its projections, for one sequence, written from ops/gated_delta/delta_mixer.h.
#pragma once

#include "tests/support/oracle/conv_silu.h"
#include "tests/support/oracle/gated_delta.h"

namespace nibble::oracle {

struct DeltaMixerInputs {
  std::vector<double> mix, z, a, b;                // [T,...]
  std::vector<double> conv, a_log, dt_bias, norm;  // weights
  double l2_eps, norm_eps;
  bool silu;
};

/// conv_state [3,CD] and S [Hv,Dk,Dv] are updated in place; the result is y [T,Hv,Dv].
inline std::vector<double> delta_mixer(const DeltaShape& s, const DeltaMixerInputs& in, std::vector<double>& conv_state,
                                       std::vector<double>& S) {
  const size_t keys = s.key_heads * s.key_size, values = s.heads * s.value_size;
  const std::vector<double> qkv = conv_silu(in.mix, in.conv, conv_state);
  std::vector<double> q, k, v, g, beta;
  for (auto row = qkv.begin(); row != qkv.end(); row += static_cast<std::ptrdiff_t>(2 * keys + values)) {
    const auto at = [&](size_t i) { return row + static_cast<std::ptrdiff_t>(i); };
    q.insert(q.end(), at(0), at(keys));
    k.insert(k.end(), at(keys), at(2 * keys));
    v.insert(v.end(), at(2 * keys), at(2 * keys + values));
  }
  delta_gates(in.a, in.b, in.a_log, in.dt_bias, g, beta);
  const double scale = 1 / std::sqrt(static_cast<double>(s.key_size));
  const std::vector<double> read =
      gated_delta(s, l2_norm(q, s.key_size, in.l2_eps), l2_norm(k, s.key_size, in.l2_eps), v, g, beta, scale, S);
  return gated_rms_norm(read, in.z, in.norm, in.norm_eps, in.silu);
}

}  // namespace nibble::oracle
