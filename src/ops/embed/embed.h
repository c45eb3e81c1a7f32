// embed: rows of a table by token id.
#pragma once

#include <span>

#include "tensor/context.h"

namespace nibble::ops {

/// embed:  y[t,:] = table[ids[t],:]
/// shapes   ids [T], 0 <= id < V   table [V,H] f32 or bf16   y [T,H] f32
void embed(Context& cx, std::span<const int32_t> ids, const Tensor& table, Tensor& y);

}  // namespace nibble::ops
