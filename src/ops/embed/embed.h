// embed: rows of a table by token id.
#pragma once

#include <span>

#include "tensor/context.h"

namespace nibble::ops {

/// embed:  y[t,:] = table[ids[t],:]
/// shapes   ids [T], 0 <= id < V   table [V,H] f32 or bf16   y [T,H] f32
void embed(Context& cx, std::span<const int32_t> ids, const Tensor& table, Tensor& y);

/// embed_vjp:  dtable[ids[t],:] += dy[t,:], t ascending
/// shapes   dy [T,H] f32   ids [T], 0 <= id < V   dtable [V,H] f32
/// effects  adds to dtable
void embed_vjp(Context& cx, const Tensor& dy, std::span<const int32_t> ids, Tensor& dtable);

}  // namespace nibble::ops
