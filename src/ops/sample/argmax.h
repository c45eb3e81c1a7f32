// argmax: the greedy choice of the next token, where it is needed next.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// argmax:  ids[t] = the index of the largest logits[t,i] with allowed[i] != 0, ties to the lowest;
///          position[t] += 1, where `position` is not empty
/// shapes   logits [T,V] f32   allowed [V] u8, or empty: all are   ids, position [T] i32
/// domain   no NaN; at least one id allowed
/// effects  writes ids, updates position; scratch from cx.arena
void argmax(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& ids, Tensor& position);

}  // namespace nibble::ops
