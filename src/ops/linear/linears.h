// linears: several products of one input, and products with what directly follows them. A GPU does each in one launch.
#pragma once

#include <span>

#include "ops/linear/linear.h"
#include "tensor/upload.h"

namespace nibble::ops {

struct LinearOutput {
  const Linear* weight;  // [out,in], the same `in` for all
  Tensor y;              // [T,out] f32, or bf16 on a GPU
};

/// linears:  y_i = linear(x, weight_i) for each output.
/// shapes   x [T,in] f32 on a CPU, bf16 on a GPU, or of inputs_of()
///          1 to 4 outputs   T >= 0
/// numeric  as linear. On a GPU products have BF16 operands, which hold every NVFP4 and FP8 weight exactly, and f32
///          sums in an order that depends on (out, in) alone: for T <= 64 a row's bits depend on that row alone.
///          Where inputs are rounded to NVFP4 (sm_120a, sm_121a) codes meet codes under their block scales, for any T
///          with bits of that row alone. Each y is rounded once.
/// effects  writes the y, which alias nothing; scratch from cx.arena
void linears(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs);

/// What is done to the inputs of both weights is the same.
inline bool same_inputs(const Linear& a, const Linear& b) {
  return a.inputs == b.inputs && (a.inputs != InputRounding::nvfp4 || a.input_scale == b.input_scale);
}
/// What a GPU multiplies in one linear_swiglu.
inline bool alike_for_swiglu(const Linear& gate, const Linear& up) {
  return gate.format == up.format && same_inputs(gate, up);
}

/// linear_swiglu:  y = silu(g) * u,  g = linear(x, gate), u = linear(x, up)
/// shapes   x [T,in]   gate, up [I,in]   y [T,I]; x and y f32 on a CPU, bf16 on a GPU, or of inputs_of()
/// numeric  as linears; on a GPU g and u are f32 for T <= 64 and rounded to BF16 beyond
/// domain   on a GPU alike_for_swiglu(gate, up)
/// effects  writes y, which aliases nothing; scratch from cx.arena
void linear_swiglu(Context& cx, const Tensor& x, const Linear& gate, const Linear& up, Tensor& y);

/// Room for [T,in] that only products with `readers` read: f32 on a CPU; on a GPU bf16, or u8 where all of these
/// products take so many rows in an order of their own (linears_cuda.h: input_image). In cx.arena.
Tensor inputs_of(Context& cx, int64_t T, std::initializer_list<const Linear*> readers);

/// Bytes of scratch that either op takes from cx.arena on a GPU for up to T rows.
size_t linears_scratch_bytes(int64_t T, int64_t largest_in);

/// The weight as the GPU of `cx` holds it (ops/linear/nvfp4_fragment.h, nvfp4_operand.h), in memory that `buffers` owns
/// from then on; it travels by `upload`, or without one by the stream alone. `unsupported` for what has no GPU kernel:
/// rounded inputs other than those of NVFP4 weights to NVFP4 on compute capability 12, a low-rank branch, f32 weights,
/// in % 16 != 0.
Result<Linear> linear_to_device(Context& cx, const Linear& w, std::vector<Buffer>& buffers, Upload* upload = nullptr);
/// The bytes that this takes there.
size_t linear_device_bytes(const Linear& w);

}  // namespace nibble::ops
