// The forward pass for serving: rows of many sequences whose states lie in slots, in as few ops as the model allows,
// on a CPU or a GPU. On a CPU it gives the bits of forward(); the difference is what is kept, which is nothing.
#pragma once

#include "model/pass_op.h"
#include "model/slots.h"
#include "model/weights.h"
#include "ops/batch.h"
#include "tensor/context.h"
#include "tensor/marks.h"

namespace nibble::model {

/// hidden [T,H] receives the post-norm rows of ids [T] i32: f32 on a CPU, bf16 on a GPU, where nothing but kernels on
/// cx.stream runs, so the call can be recorded in a Graph. `cancelled` when cx.cancel is set between layers; what the
/// batch's slots hold then means nothing. With `marks` there is one behind each op, a PassOp.
Status batch_forward(Context& cx, const Weights& weights, Slots& slots, const ops::Batch& batch, const Tensor& ids,
                     Tensor& hidden, Marks* marks = nullptr);

/// logits [T,V] f32 of rows of `hidden`.
void batch_head(Context& cx, const Weights& weights, const Tensor& hidden, Tensor& logits);

/// The activations' type between ops.
inline DType activation_type(const Context& cx) {
  return cx.device.is_cuda() ? DType::bf16 : DType::f32;
}

/// What a GPU's arena must hold for batches of up to `rows` rows of sequences up to `reach` tokens.
size_t batch_scratch_bytes(const Config& config, int64_t rows, int64_t sequences, int64_t reach);

/// What the arena must hold for to_device(): the slab of a weight that is on its way.
constexpr size_t kUploadBytes = size_t{48} << 20;

/// The weights as the GPU of `cx` holds them. `unsupported` names the tensor that has no kernel there. Where the GPU
/// shares the machine's memory, the pages of mapped files are given back tensor by tensor: nothing is held twice.
Result<Weights> to_device(Context& cx, const Weights& host);
/// The bytes that they take there.
uint64_t device_bytes(const Weights& host);

}  // namespace nibble::model
