// The whole model as naive loops over f64 or complex numbers, written from model/forward.h and ops/**/*.h, with the
// fake quantization of training: rounded weights and inputs, gradients straight through, scales constant.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/weights.h"
#include "tensor/numeric.h"
#include "tests/support/gradcheck.h"
#include "tests/support/oracle/attention.h"
#include "tests/support/oracle/conv_silu.h"
#include "tests/support/oracle/gated_delta.h"
#include "tests/support/oracle/norm.h"

namespace nibble::oracle {

/// Tensors by their name in the file, "model.layers.0.mlp.gate_proj.weight"; row-major. A tied head has none.
template <class F>
using Parameters = std::map<std::string, std::vector<F>>;

/// The f32 and BF16 tensors of a model; none of its Linears may be quantized.
inline Parameters<double> parameters_of(model::Weights& weights) {
  struct Visitor : model::WeightsVisitor {
    void add(const std::string& name, const Tensor& t) {
      std::vector<double>& to = all[name];
      for (int64_t i = 0; i < t.elements(); ++i) {
        to.push_back(t.dtype() == DType::bf16 ? bf16_to_f32(t.bf16()[i]) : t.f32()[i]);
      }
    }
    void linear(const std::string& name, ops::Linear& w, int64_t, int64_t) override { add(name + ".weight", w.weight); }
    void tensor(const std::string& name, Tensor& t, const Shape&, model::TensorKind) override { add(name, t); }
    Parameters<double> all;
  } visitor;
  model::visit_weights(weights, visitor);
  return visitor.all;
}

/// How the quantizable Linears are rounded. Weights: strategy max under the amax of now.
struct FakeQuant {
  bool weights = false;
  bool tied = false;                        // members of a fused group share their amax
  std::map<std::string, float> input_amax;  // static, by module; empty: inputs stay as they are
};

/// x rounded to NVFP4 and back by strategy max under the tensor scale of `amax`; tangents pass.
template <class F>
void fake_quantize(std::vector<F>& x, float amax) {
  const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax);
  for (size_t block = 0; block < x.size(); block += kNvfp4Block) {
    float largest = 0;
    for (size_t i = block; i < block + kNvfp4Block; ++i) {
      largest = std::max(largest, std::fabs(static_cast<float>(std::real(x[i]))));
    }
    const float step = nvfp4_step(nvfp4_block_scale(largest, scale.ws2), scale.ws2);
    for (size_t i = block; i < block + kNvfp4Block; ++i) {
      const uint8_t code = scale.zero ? uint8_t{0} : nvfp4_code(static_cast<float>(std::real(x[i])), step);
      x[i] = test::straight_through(x[i], nvfp4_value(code, step));
    }
  }
}

template <class F>
class Model {
 public:
  using Values = std::vector<F>;

  /// `parameters` must outlive the model.
  Model(const model::Config& config, std::string prefix, const Parameters<F>& parameters, FakeQuant quant = {})
      : c_(config), prefix_(std::move(prefix)), parameters_(parameters), quant_(std::move(quant)) {}

  /// The post-norm rows [T,H] of one sequence from its beginning.
  Values hidden(std::span<const int32_t> ids) {
    const auto H = static_cast<size_t>(c_.hidden);
    const Values& embed = at(prefix_ + "embed_tokens.weight");
    Values h;
    for (const int32_t id : ids) {
      for (size_t i = 0; i < H; ++i) h.push_back(embed[static_cast<size_t>(id) * H + i]);
    }
    for (int64_t layer = 0; layer < c_.layers; ++layer) {
      const std::string p = prefix_ + "layers." + std::to_string(layer) + ".";
      const Values n = norm(h, p + "input_layernorm");
      add(c_.is_full_attention(layer) ? full_attention(n, p + "self_attn.") : delta_net(n, p + "linear_attn."), h);
      add(mlp(norm(h, p + "post_attention_layernorm"), p + "mlp."), h);
    }
    return norm(h, prefix_ + "norm");
  }

  /// The logits [V] of row t of hidden().
  Values logits(const Values& hidden, size_t t) {
    const auto H = static_cast<size_t>(c_.hidden);
    const auto head = parameters_.find("lm_head.weight");
    const Values& w = head != parameters_.end() ? head->second : at(prefix_ + "embed_tokens.weight");
    return product({hidden.begin() + static_cast<long>(t * H), hidden.begin() + static_cast<long>((t + 1) * H)}, w, H);
  }

  /// Adds -log p(labels[t+1]) of every row t with a label, and counts them.
  void add_cross_entropy(std::span<const int32_t> ids, std::span<const int32_t> labels, F& loss, size_t& rows) {
    const Values h = hidden(ids);
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      if (labels[t + 1] == -100) continue;
      const Values z = logits(h, t);
      double largest = std::real(z[0]);
      for (const F& x : z) largest = std::max(largest, std::real(x));
      F total = 0;
      for (const F& x : z) total += std::exp(x - F(largest));
      loss += F(largest) + std::log(total) - z[static_cast<size_t>(labels[t + 1])];
      ++rows;
    }
  }

 private:
  const Values& at(const std::string& name) const { return parameters_.at(name); }
  Values norm(const Values& x, const std::string& module) const {
    return rms_norm(x, at(module + ".weight"), c_.norm_eps, true);
  }
  static void add(const Values& x, Values& sum) {
    for (size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
  }
  static Values product(const Values& x, const Values& w, size_t in) {
    Values y;
    y.reserve(x.size() / in * (w.size() / in));
    for (size_t row = 0; row < x.size(); row += in) {
      for (size_t n = 0; n < w.size(); n += in) {
        F sum = 0;
        for (size_t i = 0; i < in; ++i) sum += x[row + i] * w[n + i];
        y.push_back(sum);
      }
    }
    return y;
  }

  /// x W^T of a quantizable Linear, a member of a fused group.
  Values project(Values x, const std::string& p, const std::string& name, const std::vector<std::string>& group) {
    const Values& w = at(p + name + ".weight");
    const std::vector<std::string> alone = {name};
    const std::vector<std::string>& sharing = quant_.tied ? group : alone;
    const size_t in = static_cast<size_t>(name == "down_proj"  ? c_.intermediate
                                          : name == "o_proj"   ? c_.q_dim()
                                          : name == "out_proj" ? c_.value_dim()
                                                               : c_.hidden);
    if (!quant_.weights) return product(x, w, in);
    if (!quant_.input_amax.empty()) {
      float amax = 0;
      for (const std::string& member : sharing) amax = std::max(amax, quant_.input_amax.at(p + member));
      fake_quantize(x, amax);
    }
    Values& rounded = rounded_[p + name];
    if (rounded.empty()) {
      float amax = 0;
      for (const std::string& member : sharing) {
        for (const F& v : at(p + member + ".weight")) {
          amax = std::max(amax, std::fabs(static_cast<float>(std::real(v))));
        }
      }
      rounded = w;
      fake_quantize(rounded, amax);
    }
    return product(x, rounded, in);
  }
  Values project(const Values& x, const std::string& p, const std::string& name) { return project(x, p, name, {name}); }

  /// Columns [begin, end) of x [T,width].
  static Values columns(const Values& x, size_t width, size_t begin, size_t end) {
    Values y;
    for (size_t row = 0; row < x.size(); row += width) {
      y.insert(y.end(), x.begin() + static_cast<long>(row + begin), x.begin() + static_cast<long>(row + end));
    }
    return y;
  }

  Values full_attention(const Values& n, const std::string& p) {
    const std::vector<std::string> qkv = {"q_proj", "k_proj", "v_proj"};
    const auto D = static_cast<size_t>(c_.head_dim), nh = static_cast<size_t>(c_.heads);
    const auto nkv = static_cast<size_t>(c_.kv_heads), R = static_cast<size_t>(c_.rotary_dim);
    const Values both = project(n, p, "q_proj", qkv);
    const size_t width = c_.attention_gate ? 2 * D : D;
    Values q = norm(columns(both, width, 0, D), p + "q_norm");
    Values k = norm(project(n, p, "k_proj", qkv), p + "k_norm");
    q = rope(q, nh, D, 0, R, c_.rope_theta);
    k = rope(k, nkv, D, 0, R, c_.rope_theta);
    const AttentionShape shape{q.size() / (nh * D), nh, nkv, D, 0};
    Values o = attention(shape, q, k, project(n, p, "v_proj", qkv), 1 / std::sqrt(static_cast<double>(D)));
    if (c_.attention_gate) {
      const Values gate = columns(both, width, D, 2 * D);
      for (size_t i = 0; i < o.size(); ++i) o[i] *= logistic(gate[i]);
    }
    return project(o, p, "o_proj");
  }

  Values delta_net(const Values& n, const std::string& p) {
    const std::vector<std::string> qkvz = {"in_proj_qkv", "in_proj_z"};
    const auto H = static_cast<size_t>(c_.hidden), Hk = static_cast<size_t>(c_.key_heads);
    const auto Hv = static_cast<size_t>(c_.value_heads), Dk = static_cast<size_t>(c_.key_head_dim);
    const auto Dv = static_cast<size_t>(c_.value_head_dim), CD = static_cast<size_t>(c_.conv_dim());
    const Values z = project(n, p, "in_proj_z", qkvz);
    Values taps(3 * CD), S(Hv * Dk * Dv), g, beta;
    const Values mixed = conv_silu(project(n, p, "in_proj_qkv", qkvz), at(p + "conv1d.weight"), taps);
    const Values q = l2_norm(columns(mixed, CD, 0, Hk * Dk), Dk, 1e-6);
    const Values k = l2_norm(columns(mixed, CD, Hk * Dk, 2 * Hk * Dk), Dk, 1e-6);
    delta_gates(product(n, at(p + "in_proj_a.weight"), H), product(n, at(p + "in_proj_b.weight"), H), at(p + "A_log"),
                at(p + "dt_bias"), g, beta);
    const Values y = gated_delta({n.size() / H, Hk, Hv, Dk, Dv}, q, k, columns(mixed, CD, 2 * Hk * Dk, CD), g, beta,
                                 1 / std::sqrt(static_cast<double>(Dk)), S);
    const bool silu = c_.gate == model::GateType::silu;
    return project(gated_rms_norm(y, z, at(p + "norm.weight"), c_.norm_eps, silu), p, "out_proj");
  }

  Values mlp(const Values& n, const std::string& p) {
    const std::vector<std::string> both = {"gate_proj", "up_proj"};
    Values gate = project(n, p, "gate_proj", both);
    const Values up = project(n, p, "up_proj", both);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] *= logistic(gate[i]) * up[i];
    return project(gate, p, "down_proj");
  }

  const model::Config& c_;
  std::string prefix_;
  const Parameters<F>& parameters_;
  FakeQuant quant_;
  std::map<std::string, Values> rounded_;  // weights after fake quantization, by module
};

/// Sequences of equal length, one after the other: ids and unshifted labels, -100 for none.
struct LabelledBatch {
  std::span<const int32_t> ids, labels;
  size_t tokens;  // per sequence
};

/// The mean cross-entropy over all labelled rows.
template <class F>
F cross_entropy(Model<F>& model, const LabelledBatch& batch) {
  F loss = 0;
  size_t rows = 0;
  for (size_t at = 0; at < batch.ids.size(); at += batch.tokens) {
    model.add_cross_entropy(batch.ids.subspan(at, batch.tokens), batch.labels.subspan(at, batch.tokens), loss, rows);
  }
  return loss / F(static_cast<double>(rows));
}

}  // namespace nibble::oracle
