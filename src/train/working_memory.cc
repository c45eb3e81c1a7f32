#include "train/working_memory.h"

#include <algorithm>

#include "model/state.h"
#include "train/sequences.h"

namespace nibble::train {
namespace {

using model::Config;
using model::LayerType;

constexpr int64_t kTile = 64;  // tokens of the delta rule's chunks; rows and keys of attention's blocks

int64_t tiles_of(int64_t tokens) {
  return (tokens + kTile - 1) / kTile;
}

// What both halves of a block and the norms around them take, in elements of one token. The names are those of
// BlockTrace and of the gradients in model/backward.cc.
struct PerToken {
  int64_t forward = 0, backward = 0;
};

PerToken common(const Config& c) {
  // n, h_mid, n_mid, y; gate, up, y | dact, dgate, dup; dn, a temporary, the norms' dx twice
  return {4 * c.hidden + 3 * c.intermediate, 3 * c.intermediate + 4 * c.hidden};
}

PerToken attention(const Config& c) {
  const int64_t q = c.q_dim(), kv = c.kv_dim(), gate = c.attention_gate ? q : 0;
  // q_proj; q_raw, gate; k_raw, v, k; q, o; gated | dmixed; dout, dgate; dq, dk, dv; dq_raw, dk_raw; both; dn thrice
  return {c.q_proj_rows() + 2 * gate + 3 * kv + 2 * q + gate, q + 2 * gate + 2 * q + 3 * kv + 2 * gate + 3 * c.hidden};
}

PerToken delta(const Config& c) {
  const int64_t keys = c.value_heads / c.key_heads > 1 ? 2 * c.value_heads * c.key_head_dim : 0;
  // mix, qkv, their parts; z, y, gated; q, k; a, b, g, beta | dmixed, dy_rule, dz, dv; dq, dk; dg, dbeta, da, db; dqkv,
  // dmix; dn four times; dq and dk by value head
  return {3 * c.conv_dim() + 3 * c.value_dim() + 2 * c.key_dim() + 4 * c.value_heads,
          4 * c.value_dim() + 2 * c.key_dim() + 4 * c.value_heads + 2 * c.conv_dim() + 4 * c.hidden + keys};
}

// Scratch of the two ops that mix tokens, of the longest sequence.
int64_t attention_scratch(const Config& c, const PlanOptions& o) {
  const int64_t T = tiles_of(o.batch.longest) * kTile, lanes = std::max<int64_t>(1, 4 / c.kv_heads);
  const int64_t slots = std::min<int64_t>(o.threads, c.kv_heads * lanes);
  return (3 + 2 * lanes) * c.kv_dim() * T + slots * kTile * (3 * c.head_dim + 2 * T);
}

int64_t delta_scratch(const Config& c, const PlanOptions& o) {
  const int64_t Dk = c.key_head_dim, Dv = c.value_head_dim, slots = std::min<int64_t>(o.threads, c.value_heads);
  const int64_t tile = Dk * Dv + kTile * (2 * kTile + 2 * Dv);  // a state and what its chunk keeps
  return slots * (tiles_of(o.batch.longest) * tile + 3 * Dk * Dv + kTile * (6 * Dk + 4 * Dv + 5 * kTile));
}

struct Block {
  int64_t forward = 0;  // elements that a forward leaves for the backward
  int64_t scratch = 0;  // beside that, in the forward
  int64_t backward = 0;
};

Block block_of(const Config& c, LayerType type, const PlanOptions& o) {
  const bool full = type == LayerType::full_attention;
  const PerToken mlp = common(c), mixer = full ? attention(c) : delta(c);
  // The widest input of a linear is arranged for its kernel, and rounded before where inputs are quantized.
  const int64_t widest = std::max({c.intermediate, c.q_dim(), c.value_dim(), c.hidden});
  const int64_t T = o.batch.tokens, rounded = o.quantized_inputs ? T * widest : 0;
  return {
      T * (mlp.forward + mixer.forward), T * widest + rounded,
      T * (mlp.backward + mixer.backward) + std::max(rounded, full ? attention_scratch(c, o) : delta_scratch(c, o))};
}

// Of the layers that the model has.
template <class F>
int64_t largest_block(const Config& c, F size) {
  int64_t most = 0;
  for (const LayerType type : {LayerType::full_attention, LayerType::linear_attention}) {
    if (c.count(type) > 0) most = std::max(most, size(type));
  }
  return most;
}

int64_t forward_peak(const Config& c, const PlanOptions& o) {
  return largest_block(c, [&](LayerType type) {
    const Block b = block_of(c, type, o);
    return b.forward + b.scratch;
  });
}

int64_t backward_peak(const Config& c, const PlanOptions& o) {
  const int64_t T = o.batch.tokens;
  // dhidden, dh, and the block's input where it is run again
  return (o.keep_traces ? 2 : 3) * T * c.hidden + largest_block(c, [&](LayerType type) {
           const Block b = block_of(c, type, o);
           return o.keep_traces ? std::max(b.scratch, b.backward) : b.forward + std::max(b.scratch, b.backward);
         });
}

int64_t head_peak(const Config& c, const PlanOptions& o) {
  const int64_t T = o.batch.tokens, rows = std::min(o.head_chunk, T);
  const int64_t teacher = o.teacher ? c.vocab + 2 * o.teacher->config.hidden : 0;
  // dhidden; of a chunk: the rows, as they are and arranged, their gradient, the logits
  return T * c.hidden + rows * (3 * c.hidden + c.vocab + teacher);
}

uint64_t states_of(const Config& c, const BatchExtent& batch) {
  return static_cast<uint64_t>(batch.sequences) *
         model::State::bytes_needed(c, sequence_capacity(batch.longest), DType::f32);
}

}  // namespace

WorkingMemory working_memory(const PlannedModel& model, const PlanOptions& o) {
  const Config& c = model.config;
  const int64_t T = o.batch.tokens;
  int64_t kept = (c.layers + 2) * T * c.hidden;  // the input of every block and of the final norm, hidden
  if (o.teacher) kept += T * o.teacher->config.hidden;
  if (o.keep_traces) {
    for (const LayerType type : c.layer_types) kept += block_of(c, type, o).forward;
  }
  int64_t peak = std::max(backward_peak(c, o), head_peak(c, o));
  if (!o.keep_traces) peak = std::max(peak, forward_peak(c, o));
  // Nothing is kept yet while the teacher reads, and nothing any more while weights are merged or compared.
  int64_t alone = 0;
  const bool reads = o.teacher && !o.teacher_is_file;
  if (reads) alone = 2 * T * o.teacher->config.hidden + forward_peak(o.teacher->config, o);
  if (o.student.quantize || o.student.lora.rank > 0) alone = std::max(alone, count_parameters(model).largest);
  peak = std::max(peak, alone - kept);

  WorkingMemory work;
  work.states = states_of(c, o.batch) + (reads ? states_of(o.teacher->config, o.batch) : 0);
  work.kept = static_cast<uint64_t>(kept) * sizeof(float);
  work.peak = static_cast<uint64_t>(peak) * sizeof(float);
  return work;
}

}  // namespace nibble::train
