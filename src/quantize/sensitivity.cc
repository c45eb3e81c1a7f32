#include "quantize/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <unordered_map>

#include "checkpoint/fused_linears.h"
#include "model/backward.h"
#include "model/forward.h"
#include "ops/loss/head_loss.h"
#include "ops/loss/kl.h"
#include "ops/norm/rms_norm.h"
#include "quantize/sites.h"

namespace nibble::quantize {
namespace {

constexpr int64_t kRows = 128;  // of logits at a time
constexpr const char* kHead = "lm_head";

class Scorer {
 public:
  Scorer(Context& cx, const model::Weights& weights, std::span<const Format> formats, const LinearInFormat& in_format,
         std::vector<FormatGroup>& groups)
      : cx_(cx), weights_(weights), formats_(formats), in_format_(in_format), groups_(groups) {
    weights.for_each_linear(
        [&](std::string_view name, const ops::Linear& linear) { by_name_[std::string(name)] = &linear; });
    for (FormatGroup& group : groups) group.scores.assign(formats.size(), 0);
  }

  Status run(std::span<const std::vector<int32_t>> chats, Sensitivity kind, const Progress& progress) {
    uint64_t done = 0, total = 0;
    for (const auto& chat : chats) total += chat.size();
    for (const auto& chat : chats) {
      const Arena::Scope scope(cx_.arena);
      NIBBLE_RETURN_IF_ERROR(kind == Sensitivity::kl ? by_kl(chat) : by_gradient(chat));
      done += chat.size();
      report(progress, done, total, "sensitivity");
    }
    return {};
  }

 private:
  Result<model::State> forward(const std::vector<int32_t>& chat, Tensor& hidden, model::Tape& tape) {
    model::State state(weights_.config, static_cast<int64_t>(chat.size()), DType::f32);
    hidden = cx_.arena.f32({static_cast<int64_t>(chat.size()), weights_.config.hidden});
    const model::Segment segment{&state, 0, static_cast<int64_t>(chat.size())};
    NIBBLE_RETURN_IF_ERROR(model::forward(cx_, weights_, chat, {&segment, 1}, hidden, nullptr, &tape));
    return state;
  }

  /// Sum of KL between the head over `hidden` and `head` over `other`.
  double divergence(const Tensor& hidden, const Tensor& other, const ops::Linear& head) {
    double sum = 0;
    for (int64_t begin = 0; begin < hidden.dim(0); begin += kRows) {
      const Arena::Scope scope(cx_.arena);
      const int64_t end = std::min(begin + kRows, hidden.dim(0));
      Tensor a = cx_.arena.f32({end - begin, weights_.config.vocab}), b = cx_.arena.f32(a.shape());
      ops::linear(cx_, hidden.rows(begin, end), weights_.lm_head, a);
      ops::linear(cx_, other.rows(begin, end), head, b);
      std::vector<double> kl(static_cast<size_t>(end - begin));
      std::vector<uint8_t> equal(kl.size());
      ops::softmax_compare(cx_, a, b, kl, equal);
      for (double value : kl) sum += value;
    }
    return sum;
  }

  Status by_kl(const std::vector<int32_t>& chat) {
    const model::Config& config = weights_.config;
    model::Tape tape;
    Tensor hidden;
    NIBBLE_TRY(state, forward(chat, hidden, tape));
    const model::Segment segment{&state, 0, hidden.dim(0)};
    for (FormatGroup& group : groups_) {
      for (size_t f = 0; f < formats_.size(); ++f) {
        if (cx_.cancel.cancelled()) return cancelled("sensitivity: stopped");
        const Arena::Scope scope(cx_.arena);
        if (group.name == kHead) {
          NIBBLE_TRY(head, in_format_(group.name, formats_[f]));
          group.scores[f] += divergence(hidden, hidden, head);
          continue;
        }
        NIBBLE_TRY(layer, layer_of(group.modules.front()));
        model::BlockWeights block = weights_.blocks[static_cast<size_t>(layer)];
        std::vector<Buffer> held;
        NIBBLE_RETURN_IF_ERROR(replace(group, formats_[f], layer, block, held));
        Tensor h = cx_.arena.f32(hidden.shape());
        std::memcpy(h.raw(), tape.border[static_cast<size_t>(layer)].raw(), h.bytes());
        state.reset();
        for (int64_t l = layer; l < config.layers; ++l) {
          const Arena::Scope layer_scope(cx_.arena);
          model::BlockTrace trace;
          const model::BlockWeights& weights = l == layer ? block : weights_.blocks[static_cast<size_t>(l)];
          model::block_forward(cx_, config, weights, static_cast<int>(l), {&segment, 1}, nullptr, h, trace);
        }
        Tensor out = cx_.arena.f32(h.shape());
        ops::rms_norm(cx_, h, weights_.final_norm, config.norm_eps, ops::Gain::one_plus, out);
        group.scores[f] += divergence(hidden, out, weights_.lm_head);
      }
    }
    return {};
  }

  Status by_gradient(const std::vector<int32_t>& chat) {
    if (chat.size() < 2) return {};
    model::Tape tape;
    Tensor hidden;
    NIBBLE_TRY(state, forward(chat, hidden, tape));
    const model::Segment segment{&state, 0, hidden.dim(0)};
    std::vector<ops::HeadLossRow> rows;
    for (size_t t = 0; t + 1 < chat.size(); ++t) rows.push_back({static_cast<int32_t>(t), chat[t + 1], 1, 0});
    Tensor dhidden = cx_.arena.f32(hidden.shape()), no_head;
    ops::head_loss_vjp(cx_, rows, hidden, weights_.lm_head, {}, {}, dhidden, no_head);

    std::unordered_map<const ops::Linear*, std::pair<FormatGroup*, const std::string*>> watched;
    for (FormatGroup& group : groups_) {
      if (group.name == kHead) continue;
      for (const std::string& module : group.modules) watched[by_name_.at(module)] = {&group, &module};
    }
    Status status;
    const auto tap = [&](const ops::Linear& linear, const Tensor& x, const Tensor& dy) {
      const auto found = watched.find(&linear);
      if (found == watched.end() || !status.ok()) return;
      for (size_t f = 0; f < formats_.size(); ++f) {
        Result<ops::Linear> quantized = in_format_(*found->second.second, formats_[f]);
        if (!quantized.ok()) {
          status = quantized.status();
          return;
        }
        found->second.first->scores[f] += disturbance(linear, *quantized, x, dy);
      }
    };
    model::Gradients none = model::blank_weights(weights_.config, weights_.prefix, weights_.tied);
    NIBBLE_RETURN_IF_ERROR(model::backward(cx_, weights_, chat, {&segment, 1}, tape, dhidden, none, tap));
    NIBBLE_RETURN_IF_ERROR(status);
    for (FormatGroup& group : groups_) {
      if (group.name == kHead) NIBBLE_RETURN_IF_ERROR(disturb_head(chat, hidden, group));
    }
    return {};
  }

  /// The head's part, whose outputs are the logits z: dL/dz = softmax(z) - onehot(label).
  Status disturb_head(const std::vector<int32_t>& chat, const Tensor& hidden, FormatGroup& group) {
    const int64_t V = weights_.config.vocab, labelled = hidden.dim(0) - 1;
    for (size_t f = 0; f < formats_.size(); ++f) {
      NIBBLE_TRY(head, in_format_(group.name, formats_[f]));
      for (int64_t begin = 0; begin < labelled; begin += kRows) {
        const Arena::Scope scope(cx_.arena);
        const int64_t end = std::min(begin + kRows, labelled);
        Tensor z = cx_.arena.f32({end - begin, V}), changed = cx_.arena.f32(z.shape());
        ops::linear(cx_, hidden.rows(begin, end), weights_.lm_head, z);
        ops::linear(cx_, hidden.rows(begin, end), head, changed);
        for (int64_t t = 0; t < end - begin; ++t) {
          const float* row = z.f32() + t * V;
          const double largest = *std::max_element(row, row + V);
          double sum = 0;
          for (int64_t i = 0; i < V; ++i) sum += std::exp(row[i] - largest);
          for (int64_t i = 0; i < V; ++i) {
            const bool label = i == chat[static_cast<size_t>(begin + t + 1)];
            const double g = std::exp(row[i] - largest) / sum - (label ? 1 : 0);
            const double product = g * (static_cast<double>(changed.f32()[t * V + i]) - row[i]);
            group.scores[f] += product * product;
          }
        }
      }
    }
    return {};
  }

  /// sum (g (y' - y))^2
  double disturbance(const ops::Linear& linear, const ops::Linear& quantized, const Tensor& x, const Tensor& dy) {
    const Arena::Scope scope(cx_.arena);
    Tensor y = cx_.arena.f32({x.dim(0), linear.out}), changed = cx_.arena.f32(y.shape());
    ops::linear(cx_, x, linear, y);
    ops::linear(cx_, x, quantized, changed);
    double sum = 0;
    for (int64_t i = 0; i < y.elements(); ++i) {
      const double product = dy.f32()[i] * (static_cast<double>(changed.f32()[i]) - y.f32()[i]);
      sum += std::min(product * product, 1e20);
    }
    return sum;
  }

  Result<int64_t> layer_of(const std::string& module) const {
    const std::string prefix = weights_.prefix + "layers.";
    NIBBLE_CHECK(module.starts_with(prefix));
    return static_cast<int64_t>(std::strtoll(module.c_str() + prefix.size(), nullptr, 10));
  }

  /// Puts the group into the block of its layer. `held` keeps what the views of in_format_ would lose.
  Status replace(const FormatGroup& group, Format format, int64_t layer, model::BlockWeights& block,
                 std::vector<Buffer>& held) {
    const std::string prefix = fmt::format("{}layers.{}.", weights_.prefix, layer);
    for (const auto& readers : sites_of(weights_.config, prefix, block)) {
      for (const Reader& reader : readers) {
        if (std::find(group.modules.begin(), group.modules.end(), reader.module) == group.modules.end()) continue;
        NIBBLE_TRY(linear, in_format_(reader.module, format));
        for (Tensor* part :
             {&linear.weight, &linear.block_scale, &linear.channel_scale, &linear.low_rank_a, &linear.low_rank_b}) {
          if (part->empty()) continue;
          const Tensor copy =
              held.emplace_back(Buffer::for_tensor(part->dtype(), part->shape())).tensor(part->dtype(), part->shape());
          std::memcpy(copy.raw(), part->raw(), part->bytes());
          *part = copy;
        }
        *reader.linear = linear;
      }
    }
    return {};
  }

  Context& cx_;
  const model::Weights& weights_;
  std::span<const Format> formats_;
  const LinearInFormat& in_format_;
  std::vector<FormatGroup>& groups_;
  std::map<std::string, const ops::Linear*> by_name_;
};

}  // namespace

std::vector<FormatGroup> format_groups(const Plan& plan) {
  std::vector<FormatGroup> groups;
  std::map<int64_t, size_t> by_number;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.quantized()) continue;
    const auto [found, fresh] = by_number.try_emplace(tensor.group, groups.size());
    if (fresh) groups.push_back({checkpoint::fused_module(tensor.module), {}, 0, 0, {}});
    FormatGroup& group = groups[found->second];
    group.modules.push_back(tensor.module);
    group.weights += tensor.source->shape[0] * tensor.source->shape[1];
    group.source_bytes += static_cast<int64_t>(tensor.source->bytes);
  }
  return groups;
}

Status measure_sensitivity(Context& cx, const model::Weights& weights, std::span<const std::vector<int32_t>> chats,
                           Sensitivity kind, std::span<const Format> formats, const LinearInFormat& in_format,
                           std::vector<FormatGroup>& groups, const Progress& progress) {
  NIBBLE_CHECK(cx.numeric == Numeric::exact);
  return Scorer(cx, weights, formats, in_format, groups).run(chats, kind, progress);
}

}  // namespace nibble::quantize
