// embed_ids: rows of a table by token ids that lie where the rows are wanted.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// embed_ids:  y[t,:] = table[ids[t],:]
/// shapes   ids [T] i32, 0 <= id < V   table [V,H] f32 or bf16; bf16 on a GPU   y [T,H] f32
void embed_ids(Context& cx, const Tensor& ids, const Tensor& table, Tensor& y);

}  // namespace nibble::ops
