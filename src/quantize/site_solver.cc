#include "quantize/site_solver.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/quant/fp8.h"
#include "ops/quant/nvfp4.h"
#include "quantize/dense_values.h"
#include "quantize/low_rank.h"

namespace nibble::quantize {
namespace {

// The 16x16 blocks on the diagonal of H, [K/16,16,16].
Tensor diagonal_blocks(Context& cx, const Tensor& hessian) {
  const int64_t K = hessian.dim(0);
  const Tensor blocks = cx.arena.f32({K / kNvfp4Block, kNvfp4Block, kNvfp4Block});
  for (int64_t k = 0; k < K; ++k) {
    const int64_t first = k / kNvfp4Block * kNvfp4Block;
    std::copy_n(hessian.f32() + k * K + first, kNvfp4Block, blocks.f32() + k * kNvfp4Block);
  }
  return blocks;
}

// What codes that were not rounded to nearest did to the weights, beside what scales and rows say.
void measure_error(const Tensor& w, const Tensor& decoded, ops::Nvfp4Stats& stats) {
  stats.error = stats.max_error = 0;
  for (int64_t i = 0; i < w.elements(); ++i) {
    const double e = static_cast<double>(decoded.f32()[i]) - w.f32()[i];
    stats.error += e * e;
    stats.max_error = std::max(stats.max_error, std::abs(e));
  }
}

// Squared error of the outputs over their energy, on the calibration set: e H e' / w H w' over the first rows.
double output_error(Context& cx, const Tensor& w, const Tensor& decoded, const Tensor& hessian) {
  constexpr int64_t kRows = 256;  // measuring all of a large matrix would cost more than solving it
  const Arena::Scope scope(cx.arena);
  const int64_t rows = std::min(kRows, w.dim(0));
  const Tensor some = w.rows(0, rows), error = cx.arena.f32(some.shape());
  for (int64_t i = 0; i < some.elements(); ++i) error.f32()[i] = decoded.f32()[i] - some.f32()[i];
  const double energy = hessian_loss(cx, some, hessian);
  return energy > 0 ? hessian_loss(cx, error, hessian) / energy : 0;
}

}  // namespace

struct SiteSolver::Member {
  const Reader* reader;
  Tensor w;  // f32, what is quantized: with a low-rank branch the residual
  ops::Linear linear;
};

SiteSolver::SiteSolver(Context& cx, const Plan& plan, const Recipe& recipe,
                       const std::map<std::string, float>& input_amax)
    : cx_(cx), recipe_(recipe), input_amax_(input_amax) {
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.module.empty()) planned_[tensor.module] = &tensor;
  }
}

const PlannedTensor* SiteSolver::planned(const std::string& module) const {
  const auto found = planned_.find(module);
  return found == planned_.end() ? nullptr : found->second;
}

bool SiteSolver::is_nvfp4(const Reader& reader) const {
  const PlannedTensor* tensor = planned(reader.module);
  return tensor != nullptr && tensor->format == Format::nvfp4;
}

bool SiteSolver::needs_moments() const {
  return recipe_.scales == Scales::local_hessian || recipe_.rounding == Rounding::gptq ||
         recipe_.transform == Transform::awq_clip;
}

Strategy SiteSolver::data_free() const {
  switch (recipe_.scales) {
    case Scales::max:
      return find_strategy("max").value();
    case Scales::four_over_six:
      return find_strategy("four_over_six").value();
    case Scales::mse:
    case Scales::local_hessian:
      break;
  }
  return find_strategy("mse").value();
}

float SiteSolver::input_scale(std::span<const Reader> readers) const {
  float scale = 0;
  for (const Reader& reader : readers) {
    const PlannedTensor* tensor = planned(reader.module);
    if (tensor == nullptr || tensor->inputs != Inputs::a4) continue;
    const auto amax = input_amax_.find(reader.module);
    if (amax != input_amax_.end()) scale = std::max(scale, nvfp4_tensor_scale(amax->second).ws2);
  }
  return scale;
}

void SiteSolver::set_inputs(const Reader& reader, ops::Linear& linear) const {
  const PlannedTensor* tensor = planned(reader.module);
  if (tensor->inputs == Inputs::a16) return;
  const float amax = input_amax_.at(reader.module);
  const bool fp8 = tensor->inputs == Inputs::a8;
  linear.inputs = fp8 ? ops::InputRounding::fp8 : ops::InputRounding::nvfp4;
  linear.input_scale = fp8 ? fp8_scale(amax) : nvfp4_tensor_scale(amax).ws2;
}

Status SiteSolver::solve_fp8(const Reader& reader, LayerSolution& solution) {
  const ops::Linear& source = *reader.linear;
  const bool channels = planned(reader.module)->format == Format::fp8_channel;
  SolvedModule of{reader.module, {}, 0, ""};
  ops::Linear& out = of.solved.linear;
  out.format = ops::WeightFormat::fp8;
  out.out = source.out, out.in = source.in;
  out.weight = solution.own(DType::f8e4m3, {source.out, source.in});
  ops::Fp8Stats stats;
  if (channels) {
    out.channel_scale = solution.own(DType::f32, {source.out});
    stats = ops::fp8_quantize_channels(cx_, source.weight, out.weight, out.channel_scale);
  } else {
    out.tensor_scale = fp8_scale(ops::tensor_amax(cx_, source.weight).amax);
    stats = ops::fp8_quantize(cx_, source.weight, out.tensor_scale, out.weight);
  }
  of.solved.stats.energy = stats.energy;
  of.solved.stats.error = stats.error;
  of.solved.stats.max_error = stats.max_error;
  set_inputs(reader, out);
  solution.linears.push_back(std::move(of));
  return {};
}

Status SiteSolver::solve_group(std::span<const Reader> group, const Tensor& hessian, const Tensor& blocks,
                               std::optional<GptqFactor>& factor, LayerSolution& solution) {
  GptqOptions gptq;
  gptq.act_order = recipe_.act_order;
  gptq.measure = false;
  std::vector<Member> members;
  float amax = 0;
  for (const Reader& reader : group) {
    const ops::Linear& source = *reader.linear;
    Member member{&reader, cx_.arena.f32({source.out, source.in}), {}};
    dense_values(cx_, source.weight, member.w);
    if (const int64_t rank = planned(reader.module)->rank; rank > 0) {
      NIBBLE_TRY(branch, low_rank(cx_, member.w, {.rank = rank}, member.w));
      member.linear.low_rank_a = branch.a.view;
      member.linear.low_rank_b = branch.b.view;
      solution.buffers.push_back(std::move(branch.a.buffer));
      solution.buffers.push_back(std::move(branch.b.buffer));
    }
    const ops::TensorAmax found = ops::tensor_amax(cx_, member.w);
    if (!found.finite()) {
      return corrupt("weight not finite: {}.weight[{},{}]: expected a number, got NaN or infinity", reader.module,
                     found.row, found.col)
          .with_hint("training diverged or the file was damaged: take an earlier checkpoint");
    }
    amax = std::max(amax, found.amax);
    members.push_back(member);
  }
  if (recipe_.transform == Transform::awq_clip) amax *= clip_ratio(members, amax, hessian);
  const bool by_hessian = recipe_.scales == Scales::local_hessian;
  const Strategy strategy = data_free();
  const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax, strategy.range);
  for (Member& member : members) {
    const Arena::Scope scope(cx_.arena);
    ops::Linear& out = member.linear;
    out.format = ops::WeightFormat::nvfp4;
    out.out = member.reader->linear->out, out.in = member.reader->linear->in;
    out.tensor_scale = scale.ws2;
    out.weight = solution.own(DType::u8, {out.out, out.in / 2});
    out.block_scale = solution.own(DType::f8e4m3, {out.out, out.in / kNvfp4Block});
    if (by_hessian) {
      ops::nvfp4_scales_hessian(cx_, member.w, scale, blocks, out.block_scale);
    } else {
      strategy.choose_scales(cx_, member.w, scale, out.block_scale);
    }
    SolvedModule of{member.reader->module, {}, 0, ""};
    of.solved.stats = ops::nvfp4_encode(cx_, member.w, scale, out.block_scale, out.weight);
    const bool compensated = recipe_.rounding == Rounding::gptq && !scale.zero;
    if (compensated) {
      const GptqReport report = gptq_encode(cx_, member.w, *factor, hessian, scale, out.block_scale, gptq, out.weight);
      if (report.fell_back_to_nearest) of.note = "inputs too alike for GPTQ: rounded to nearest";
    }
    if (!hessian.empty()) {
      const Tensor decoded = cx_.arena.f32(member.w.shape());
      ops::nvfp4_dequantize(cx_, out.weight, out.block_scale, out.tensor_scale, decoded);
      if (compensated) measure_error(member.w, decoded, of.solved.stats);
      of.loss = output_error(cx_, member.w, decoded, hessian);
    }
    if (of.solved.stats.lost_rows > 0) {
      return corrupt("{}: row {}: expected values that survive 4 bits, got a row that becomes zero ({} such rows)",
                     of.module, of.solved.stats.first_lost_row, of.solved.stats.lost_rows)
          .with_hint(fmt::format("keep the tensor as it is: --exclude \"{}\"", of.module));
    }
    set_inputs(*member.reader, out);
    of.solved.linear = out;
    solution.linears.push_back(std::move(of));
  }
  return {};
}

// Of 0.5, 0.55, ... 1 times the group's amax the one whose outputs on the calibration set are nearest, the first among
// equals.
float SiteSolver::clip_ratio(std::span<const Member> members, float amax, const Tensor& hessian) {
  const Strategy strategy = data_free();
  float best_ratio = 1;
  double best = std::numeric_limits<double>::infinity();
  for (int step = 0; step <= 10; ++step) {
    const float ratio = 0.5f + 0.05f * static_cast<float>(step);
    const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax * ratio, strategy.range);
    double loss = 0;
    for (const Member& member : members) {
      const Arena::Scope scope(cx_.arena);
      const int64_t out = member.w.dim(0), in = member.w.dim(1);
      const Tensor scales = cx_.arena.take(DType::f8e4m3, {out, in / kNvfp4Block});
      const Tensor codes = cx_.arena.take(DType::u8, {out, in / 2});
      const Tensor error = cx_.arena.f32({out, in});
      strategy.choose_scales(cx_, member.w, scale, scales);
      ops::nvfp4_encode(cx_, member.w, scale, scales, codes);
      ops::nvfp4_dequantize(cx_, codes, scales, scale.ws2, error);
      for (int64_t i = 0; i < error.elements(); ++i) error.f32()[i] -= member.w.f32()[i];
      loss += hessian_loss(cx_, error, hessian);
    }
    if (loss < best) {
      best = loss;
      best_ratio = ratio;
    }
  }
  return best_ratio;
}

Status SiteSolver::solve(std::span<const Reader> readers, const Tensor& hessian, LayerSolution& solution) {
  const Arena::Scope scope(cx_.arena);
  std::map<int64_t, std::vector<Reader>> groups;  // NVFP4 readers by the plan's group
  for (const Reader& reader : readers) {
    const PlannedTensor* tensor = planned(reader.module);
    if (tensor == nullptr || !tensor->quantized()) continue;
    if (tensor->format == Format::nvfp4) {
      groups[tensor->group].push_back(reader);
    } else {
      NIBBLE_RETURN_IF_ERROR(solve_fp8(reader, solution));
    }
  }
  if (groups.empty()) return {};
  Tensor blocks;
  std::optional<GptqFactor> factor;
  if (!hessian.empty()) {
    blocks = diagonal_blocks(cx_, hessian);
    if (recipe_.rounding == Rounding::gptq) {
      GptqOptions options;
      options.damping = recipe_.damping;
      options.act_order = recipe_.act_order;
      factor = GptqFactor::make(cx_, hessian, options);
    }
  }
  for (const auto& [number, group] : groups) {
    const Arena::Scope group_scope(cx_.arena);
    NIBBLE_RETURN_IF_ERROR(solve_group(group, hessian, blocks, factor, solution));
  }
  return {};
}

}  // namespace nibble::quantize
