// Weights: the tensors of a Qwen3.5 text model as the forward reads them. Plain structs; shapes stand beside the names.
//
// Matrices are views into mapped files or into `buffers`; norms, conv taps, A_log and dt_bias are always f32 in
// `buffers`. Weights is movable and never copied; all views stay valid when it moves. After load it is const in
// spirit: any number of threads may read it. Quantizers and tests may replace a Linear, giving new memory to own().
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "model/config.h"
#include "ops/linear/linear.h"
#include "tensor/tensor.h"

namespace nibble::model {

/// The delta-rule layer.
struct GdnWeights {
  ops::Linear in_proj_qkv;  // [CD,H], rows q (Hk*Dk), k (Hk*Dk), v (Hv*Dv)
  ops::Linear in_proj_z;    // [Hv*Dv,H]
  ops::Linear in_proj_b;    // [Hv,H] beta logits
  ops::Linear in_proj_a;    // [Hv,H] decay logits
  ops::Linear out_proj;     // [H,Hv*Dv]
  Tensor conv;              // [CD,conv_kernel] f32, oldest tap first
  Tensor a_log;             // [Hv] f32
  Tensor dt_bias;           // [Hv] f32
  Tensor norm;              // [Dv] f32, plain weight (1 = identity)
};

struct AttentionWeights {
  ops::Linear q_proj;     // [2*nh*D,H] per head D rows of q, then D rows of gate; [nh*D,H] without gate
  ops::Linear k_proj;     // [nkv*D,H]
  ops::Linear v_proj;     // [nkv*D,H]
  ops::Linear o_proj;     // [H,nh*D]
  Tensor q_norm, k_norm;  // [D] f32, zero-centred (0 = identity)
};

struct MlpWeights {
  ops::Linear gate_proj, up_proj;  // [I,H]
  ops::Linear down_proj;           // [H,I]
};

/// One layer: exactly one of gdn and attention is set.
struct BlockWeights {
  Tensor input_norm, post_norm;  // [H] f32, zero-centred
  std::optional<GdnWeights> gdn;
  std::optional<AttentionWeights> attention;
  MlpWeights mlp;
};

struct Weights {
  Config config;
  std::string prefix = "model.";     // of the text tensors' names: "model." or "model.language_model."
  Tensor embed;                      // [V,H] f32 or bf16
  std::vector<BlockWeights> blocks;  // L
  Tensor final_norm;                 // [H] f32, zero-centred
  ops::Linear lm_head;               // [V,H]; views embed when tied
  bool tied = false;

  std::vector<MappedFile> mappings;
  std::vector<Buffer> buffers;

  Weights() = default;
  Weights(Weights&&) = default;
  Weights& operator=(Weights&&) = default;

  /// Keeps memory alive that tensors of this model view.
  const Buffer& own(Buffer buffer) { return buffers.emplace_back(std::move(buffer)); }

  /// Calls `visit` with every Linear of the blocks and lm_head by module name, which is the tensor's name without
  /// ".weight": "model.layers.0.mlp.gate_proj". Layer by layer, in the order of the tensor table; lm_head last.
  void for_each_linear(const std::function<void(std::string_view, ops::Linear&)>& visit);
  void for_each_linear(const std::function<void(std::string_view, const ops::Linear&)>& visit) const;
};

/// A Weights whose blocks, Linears and tensors are all there but empty: layer types decide gdn or attention. `tied`
/// says whether lm_head is the embedding.
Weights blank_weights(const Config& config, std::string_view prefix, bool tied);

/// What a tensor of the table is, as far as loaders, quantizers and generators treat it differently.
enum class TensorKind : uint8_t {
  embedding,   // [V,H]
  linear,      // [out,in]
  norm,        // zero-centred RMSNorm weight
  gated_norm,  // plain RMSNorm weight of the delta rule's output
  conv,        // [CD,1,conv_kernel] in files, [CD,conv_kernel] in memory
  a_log,       // log of the decay rate, per value head
  dt_bias,     // bias of the decay logits, per value head
};

/// Sees every tensor slot of a model once, in the order of the tensor table, with the shape that files give it.
class WeightsVisitor {
 public:
  virtual ~WeightsVisitor() = default;
  /// `name` of the module: the file's tensors are name + ".weight" and, when quantized, its companions.
  virtual void linear(const std::string& name, ops::Linear& linear, int64_t out, int64_t in) = 0;
  /// `name` of the tensor in the file.
  virtual void tensor(const std::string& name, Tensor& tensor, const Shape& shape, TensorKind kind) = 0;
};

/// All text tensors; lm_head only when it has a tensor of its own.
void visit_weights(Weights& weights, WeightsVisitor& visitor);
/// The tensors of one block whose names begin with `prefix`: "model.layers.0.", "mtp.layers.0.".
void visit_block(const Config& config, const std::string& prefix, BlockWeights& block, WeightsVisitor& visitor);

/// The Linear of a full-precision matrix [out,in], f32 or bf16.
ops::Linear dense_linear(const Tensor& weight);

/// Bytes that producing one token reads: every Linear once and one row of the embedding. Memory bandwidth over this is
/// the speed of light of decoding.
uint64_t bytes_per_token(const Weights& weights);
uint64_t embedding_row_bytes(const Weights& weights);

}  // namespace nibble::model
