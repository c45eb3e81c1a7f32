// adamw: Adam with decoupled weight decay, one fused pass over a tensor.  Elementwise, t = step = 1, 2, …:
//   g  = clip * grad
//   m  = beta1 m + (1 - beta1) g
//   v  = beta2 v + (1 - beta2) g^2
//   w  = (1 - lr weight_decay) w - lr m^ / (sqrt(v^) + eps)     m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)
// numeric  all in f32 without contraction; the update uses m and v before they are rounded for storage. An element's
//          bits depend on its values, its index and the random key alone: not on threads, SIMD target or placement
// effects  updates w, low and the moments in place, reads grad; allocates nothing
// domain   finite values; a step whose gradients are not finite must be skipped by the caller
#pragma once

#include "ops/optim/random16.h"
#include "tensor/context.h"

namespace nibble::ops {

/// How moments are stored. bf16 is rounded stochastically; q8 is moment_code.h.
enum class MomentFormat : uint8_t { f32, bf16, q8 };

/// How weights are stored. split: BF16 and its low half, equal to f32 bit for bit (split_master.h). bf16: the update is
/// rounded stochastically, as most updates are smaller than half a BF16 step.
enum class MasterFormat : uint8_t { f32, split, bf16 };

constexpr const char* name(MomentFormat format) {
  return format == MomentFormat::f32 ? "f32" : format == MomentFormat::bf16 ? "bf16" : "q8";
}
constexpr const char* name(MasterFormat format) {
  return format == MasterFormat::f32 ? "f32" : format == MasterFormat::split ? "split" : "bf16";
}

struct AdamW {
  float lr = 0;
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
  float weight_decay = 0;
  int64_t step = 1;
  float clip = 1;  // factor on the gradient; see clip_factor
};

/// One moment of n elements. Memory filled with zeros is a moment of zeros in every format.
struct Moment {
  Tensor values;  // [n] f32 or bf16, or u8 codes
  Tensor absmax;  // [ceil(n/256)] f32 with codes, else empty
};

/// One parameter tensor, flat: views of memory that the caller owns. The formats are read off the types.
struct AdamWParameter {
  Tensor w;     // [n] f32, or bf16
  Tensor low;   // [n] u16 of a split master, else empty
  Tensor grad;  // [n] f32 or bf16
  Moment m, v;  // both in one format
};

/// One update. The key names this tensor and step; it is used where something is rounded stochastically.
void adamw(Context& cx, const AdamW& options, const RandomKey& key, const AdamWParameter& parameter);

/// acc = stochastic_bf16(acc + x): accumulation of gradients over micro-steps without a bias.
/// shapes   acc [n] bf16, x [n] f32
void accumulate_bf16(Context& cx, const Tensor& x, const RandomKey& key, const Tensor& acc);

}  // namespace nibble::ops
