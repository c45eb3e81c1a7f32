#include "quantize/awq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "ops/quant/nvfp4.h"
#include "quantize/awq_scales.h"
#include "quantize/dense_values.h"

namespace nibble::quantize {
namespace {

bool in_mixer(SiteKind site) {
  return site == SiteKind::mixer_in || site == SiteKind::mixer_out;
}

/// A matrix as f32 in the arena; the Linear then views it.
Tensor widen(Context& cx, ops::Linear& linear) {
  const Tensor values = cx.arena.f32({linear.out, linear.in});
  dense_values(cx, linear.weight, values);
  linear.format = ops::WeightFormat::f32;
  linear.weight = values;
  return values;
}

}  // namespace

std::vector<float> awq_fold(Context& cx, const SiteSolver& solver, const model::Config& config,
                            const std::string& prefix, SiteKind site, std::span<const float> s,
                            model::BlockWeights& block, LayerSolution& solution) {
  std::vector<float> effective(s.begin(), s.end());
  if (site == SiteKind::mlp_out) {
    const Tensor up = widen(cx, block.mlp.up_proj);
    awq_divide_rows(cx, up, s, up);
  } else {
    const bool mixer = site == SiteKind::mixer_in;
    Tensor& norm = mixer ? block.input_norm : block.post_norm;
    const std::string name = prefix + (mixer ? "input_layernorm.weight" : "post_attention_layernorm.weight");
    const PlannedTensor* planned = solver.planned(name.substr(0, name.size() - std::strlen(".weight")));
    const DType type = planned != nullptr && planned->source->type != DType::bf16 ? DType::f32 : DType::bf16;
    // In the type of the file, which is what s_eff makes good, and as the forward reads it.
    const Tensor stored = solution.own(type, norm.shape()), folded = solution.own(DType::f32, norm.shape());
    const Tensor exact = solution.own(type, norm.shape());
    for (int64_t k = 0; k < norm.elements(); ++k) {
      if (type == DType::f32) {
        exact.f32()[k] = norm.f32()[k];
      } else {
        exact.bf16()[k] = f32_to_bf16(norm.f32()[k]);
      }
    }
    effective = awq_fold_one_plus(exact, s, stored);
    for (int64_t k = 0; k < norm.elements(); ++k) {
      folded.f32()[k] = type == DType::f32 ? stored.f32()[k] : bf16_to_f32(stored.bf16()[k]);
    }
    norm = folded;
    solution.tensors.emplace_back(name, stored);
  }
  auto sites = sites_of(config, prefix, block);
  for (const Reader& reader : sites[static_cast<size_t>(site)]) {
    if (solver.planned(reader.module)->quantized()) {
      const Tensor w = widen(cx, *reader.linear);
      awq_scale_columns(cx, w, effective, w);
      continue;
    }
    ops::Linear& linear = *reader.linear;
    const Tensor w = solution.own(linear.weight.dtype(), {linear.out, linear.in});
    awq_scale_columns(cx, linear.weight, effective, w);
    linear.weight = w;
    solution.tensors.emplace_back(reader.module + ".weight", w);
  }
  return effective;
}

AwqLayer::AwqLayer(Context& cx, const SiteSolver& solver, const model::Config& config, LayerRunner& runner,
                   const std::string& prefix, const Path& work)
    : cx_(cx), solver_(solver), config_(config), runner_(runner), prefix_(prefix), work_(work) {}

Status AwqLayer::run(const HiddenStates& in, model::BlockWeights& block, LayerSolution& solution,
                     std::map<std::string, float>& input_amax) {
  NIBBLE_RETURN_IF_ERROR(search(SiteKind::mixer_in, in, block, solution, input_amax));
  const Path mid_file = work_ / "awq-mid.f32";
  {
    NIBBLE_TRY(writer, HiddenStatesWriter::create(mid_file));
    NIBBLE_RETURN_IF_ERROR(half(SiteKind::mixer_in, block, in, nullptr,
                                [&](const Batch&, const Tensor& out) { return writer.append(out); }));
    NIBBLE_RETURN_IF_ERROR(writer.commit());
  }
  NIBBLE_TRY(mid, HiddenStates::open(mid_file, in.tokens(), config_.hidden));
  NIBBLE_RETURN_IF_ERROR(search(SiteKind::mlp_in, mid, block, solution, input_amax));
  NIBBLE_RETURN_IF_ERROR(search(SiteKind::mlp_out, mid, block, solution, input_amax));
  std::error_code ignored;
  std::filesystem::remove(mid_file, ignored);
  return {};
}

// The output of the mixer's or the MLP's half, added to the residual stream.
Status AwqLayer::half(SiteKind site, const model::BlockWeights& block, const HiddenStates& in, const model::Tap* tap,
                      const std::function<Status(const Batch&, const Tensor& out)>& visit) {
  if (in_mixer(site)) {
    return runner_.mixer(block, in, tap, [&](const Batch& batch, const model::BlockTrace& trace, const Tensor&) {
      return visit(batch, trace.h_mid);
    });
  }
  return runner_.mlp(block, in, tap,
                     [&](const Batch& batch, const model::BlockTrace&, const Tensor& h) { return visit(batch, h); });
}

Result<AwqLayer::Statistics> AwqLayer::observe(SiteKind site, const HiddenStates& in, model::BlockWeights& block,
                                               const Path& reference) {
  const auto sites = sites_of(config_, prefix_, block);
  const ops::Linear* watched = sites[static_cast<size_t>(site)].front().linear;
  const auto K = static_cast<size_t>(watched->in);
  std::vector<double> sum(K);
  Statistics statistics{std::vector<float>(K), std::vector<float>(K)};
  model::Tap tap;
  tap.linear_input = [&](const ops::Linear& linear, const Tensor& x) {
    if (&linear != watched) return;
    for (int64_t t = 0; t < x.dim(0); ++t) {
      const float* row = x.f32() + t * x.dim(1);
      for (size_t k = 0; k < K; ++k) {
        const float magnitude = std::abs(row[k]);
        sum[k] += magnitude;
        statistics.amax[k] = std::max(statistics.amax[k], magnitude);
      }
    }
  };
  NIBBLE_TRY(writer, HiddenStatesWriter::create(reference));
  NIBBLE_RETURN_IF_ERROR(
      half(site, block, in, &tap, [&](const Batch&, const Tensor& out) { return writer.append(out); }));
  NIBBLE_RETURN_IF_ERROR(writer.commit());
  for (size_t k = 0; k < K; ++k) statistics.mean[k] = static_cast<float>(sum[k] / static_cast<double>(in.tokens()));
  return statistics;
}

Result<double> AwqLayer::loss(SiteKind site, const HiddenStates& in, const HiddenStates& reference,
                              const model::BlockWeights& block) {
  double sum = 0;
  NIBBLE_RETURN_IF_ERROR(half(site, block, in, nullptr, [&](const Batch& batch, const Tensor& out) {
    const Tensor expected = reference.rows(batch.begin, batch.end);
    for (int64_t i = 0; i < out.elements(); ++i) {
      const double e = static_cast<double>(out.f32()[i]) - expected.f32()[i];
      sum += e * e;
    }
    reference.drop(batch.begin, batch.end);
    return Status();
  }));
  return sum / static_cast<double>(in.tokens() * config_.hidden);
}

// The quantized readers of a site become FQ(W s) / s, in the arena.
void AwqLayer::disturb(SiteKind site, std::span<const float> s, model::BlockWeights& block) {
  auto sites = sites_of(config_, prefix_, block);
  std::map<int64_t, std::vector<std::pair<ops::Linear*, Tensor>>> groups;
  for (const Reader& reader : sites[static_cast<size_t>(site)]) {
    if (!solver_.is_nvfp4(reader)) continue;
    const Tensor scaled = cx_.arena.f32({reader.linear->out, reader.linear->in});
    awq_scale_columns(cx_, reader.linear->weight, s, scaled);
    groups[solver_.planned(reader.module)->group].emplace_back(reader.linear, scaled);
  }
  std::vector<float> inverse(s.size());
  for (size_t k = 0; k < s.size(); ++k) inverse[k] = 1 / s[k];
  for (auto& [number, members] : groups) {
    float amax = 0;
    for (const auto& [linear, w] : members) amax = std::max(amax, ops::tensor_amax(cx_, w).amax);
    const Strategy strategy = solver_.data_free();
    const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax, strategy.range);
    for (auto& [linear, w] : members) {
      const Tensor scales = cx_.arena.take(DType::f8e4m3, {linear->out, linear->in / kNvfp4Block});
      const Tensor codes = cx_.arena.take(DType::u8, {linear->out, linear->in / 2});
      strategy.choose_scales(cx_, w, scale, scales);
      ops::nvfp4_encode(cx_, w, scale, scales, codes);
      ops::nvfp4_dequantize(cx_, codes, scales, scale.ws2, w);
      awq_scale_columns(cx_, w, inverse, w);
      linear->format = ops::WeightFormat::f32;
      linear->weight = w;
    }
  }
}

Status AwqLayer::search(SiteKind site, const HiddenStates& in, model::BlockWeights& block, LayerSolution& solution,
                        std::map<std::string, float>& input_amax) {
  const auto sites = sites_of(config_, prefix_, block);
  const std::vector<Reader>& readers = sites[static_cast<size_t>(site)];
  std::vector<Tensor> quantized;
  for (const Reader& reader : readers) {
    if (solver_.is_nvfp4(reader)) quantized.push_back(reader.linear->weight);
  }
  if (quantized.empty()) return {};
  const Path reference_file = work_ / "awq-reference.f32";
  NIBBLE_TRY(statistics, observe(site, in, block, reference_file));
  NIBBLE_TRY(reference, HiddenStates::open(reference_file, in.tokens(), config_.hidden));
  const std::vector<float> w_mean = awq_weight_mean(cx_, quantized);

  int best = 0;
  double least = 0;
  for (int candidate = 0; candidate < kAwqCandidates; ++candidate) {
    const Arena::Scope scope(cx_.arena);
    model::BlockWeights disturbed = block;
    disturb(site, awq_candidate(statistics.mean, w_mean, candidate), disturbed);
    NIBBLE_TRY(error, loss(site, in, reference, disturbed));
    if (candidate == 0 || error < least) {
      least = error;
      best = candidate;
    }
  }
  std::error_code ignored;
  std::filesystem::remove(reference_file, ignored);
  if (best > 0) {
    const std::vector<float> s = awq_candidate(statistics.mean, w_mean, best);
    const std::vector<float> effective = awq_fold(cx_, solver_, config_, prefix_, site, s, block, solution);
    const float amax = awq_input_amax(statistics.amax, effective);
    for (const Reader& reader : readers) input_amax[reader.module] = amax;
  }
  return {};
}

}  // namespace nibble::quantize
