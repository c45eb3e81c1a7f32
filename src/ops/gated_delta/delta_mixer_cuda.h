// What the kernels of delta_mixer on a GPU share: raw operands, and the two forms of the rule.
#pragma once

#include "ops/gated_delta/delta_mixer_backends.h"

namespace nibble::ops {

struct DeltaMixerArgs {
  const int32_t *begin, *slot, *position;
  int sequences;
  int64_t longest;
  const uint16_t *mix, *z;  // bf16
  uint16_t* y;              // bf16
  const float *a, *b, *conv, *a_log, *dt_bias, *norm;
  float *conv_state, *S;
  int key_heads, heads, key_size, value_size, channels;
  float scale, l2_eps, norm_eps;
  Gate gate;
};

/// The recurrence over sequences of any length, on any GPU.
void delta_mixer_heads(Context& cx, const DeltaMixerArgs& args);
/// The same, bit for bit, by clusters of blocks; with short_only it leaves those longer than kDeltaStepRows alone.
void delta_mixer_steps(Context& cx, const DeltaMixerArgs& args, bool short_only);
/// The same, where no sequence has more than one row and Dk = Dv = 128.
void delta_mixer_tokens(Context& cx, const DeltaMixerArgs& args);
/// The chunked form over the sequences longer than kDeltaStepRows; Dk = Dv = kDeltaChunkSize.
void delta_mixer_chunks(Context& cx, const DeltaMixerArgs& args, const DeltaWindows& windows);

}  // namespace nibble::ops
