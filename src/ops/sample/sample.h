// sample: the next token of every row, each by its own rule.
#pragma once

#include <span>
#include <utility>

#include "ops/sample/draw.h"
#include "tensor/context.h"

namespace nibble::ops {

/// sample:  for each row t, with r = rules[t] and over the ids with allowed[i] != 0
///            x_i = penalised(logits[t,i], r, what seen[r.seen,i] says)
///            ids[t] = the index of the largest x, ties to the lowest, where r.temperature is 0; else one drawn with
///            probability exp(x_i / r.temperature) among those that are left of all by, in this order,
///              min_p   x >= max x + temperature * log_min_p
///              top_k   the k likeliest; equal ones by ascending id
///              top_p   as few of the likeliest as have top_p of what is left
///          position[t] += 1 where `position` is not empty;  r.position += 1;  seen[r.seen,ids[t]] += 1
/// shapes   logits [T,V] f32   allowed [V] u8, or empty: all are   rules [T,sizeof(SampleRule)] u8
///          seen [.,V] u16, or empty: no rule asks for it   ids, position [T] i32   V <= 2^19
/// domain   no NaN, the largest x finite; at least one id allowed; an id occurs less than 2^15 times
/// numeric  as draw.h: the same ids on every device for the same logits. Where neither top_k nor top_p cuts, the draw
///          walks the ids in ascending order, else from the likeliest on.
/// effects  writes ids, updates position, rules and seen
void sample(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen, Tensor& ids,
            Tensor& position);

/// Of one row on the CPU, for logits that are masked and penalised already; -INFINITY is never chosen. `candidates` is
/// scratch.
int32_t sample_row(std::span<const float> logits, const SampleRule& rule,
                   std::vector<std::pair<float, int32_t>>& candidates);

}  // namespace nibble::ops
