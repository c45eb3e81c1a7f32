// Batch: which sequences the rows of a batch belong to, as the ops that mix tokens read it.
#pragma once

#include "tensor/tensor.h"

namespace nibble::ops {

/// Rows of several sequences stand one after the other; each sequence continues the state in its slot. The tensors lie
/// on the device of the op, so a recorded graph finds new sequences, slots and positions there at each replay.
struct Batch {
  int64_t sequences = 0;
  Tensor begin{};       // [sequences+1] i32: the rows of sequence s are begin[s] .. begin[s+1]-1
  Tensor slot{};        // [sequences] i32, each at most once; -1: padding, whose rows touch no state and mean nothing
  Tensor position{};    // [sequences] i32: of the sequence's first row; 0: the slot's old state is not read
  int64_t longest = 0;  // bounds known beforehand: the most rows of one sequence,
  int64_t reach = 0;    // and a position that no row reaches
};

}  // namespace nibble::ops
