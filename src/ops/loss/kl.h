// What two models' logits, or one model's logits and a label, say about each other.
#pragma once

#include <span>

#include "tensor/context.h"

namespace nibble::ops {

/// softmax_compare: for each row, with P and Q the softmaxes of the two rows of logits:
///   kl[t] = sum_i P_i (log P_i - log Q_i), in nats, never below 0
///   top1_equal[t] = 1 if the largest logits stand at the same index (the first, among equals), else 0
/// shapes   logits_p, logits_q [T,V] f32   kl, top1_equal [T]
/// numeric  exponentials and sums in f64
void softmax_compare(Context& cx, const Tensor& logits_p, const Tensor& logits_q, std::span<double> kl,
                     std::span<uint8_t> top1_equal);

/// label_log_prob:  log_prob[t] = log softmax(logits[t])[labels[t]], in nats
/// shapes   logits [T,V] f32   labels, log_prob [T]   0 <= label < V
/// numeric  exponentials and sums in f64
void label_log_prob(Context& cx, const Tensor& logits, std::span<const int32_t> labels, std::span<double> log_prob);

}  // namespace nibble::ops
