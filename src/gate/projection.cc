#include "gate/projection.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "model/state.h"

namespace nibble::gate {
namespace {

using ops::InputRounding;
using ops::WeightFormat;

constexpr int64_t kPiece = 2048;  // tokens of a prompt that are read at once
constexpr int64_t kBatches[4] = {8, 16, 32, 64};

enum class Operands : uint8_t { bf16, fp8, fp4 };

bool rounds_to_nvfp4(const ops::Linear& w) {
  return w.format == WeightFormat::nvfp4 &&
         (w.inputs == InputRounding::nvfp4 || w.inputs == InputRounding::nvfp4_token);
}

Operands operands(const ops::Linear& w, const Machine& machine) {
  if (rounds_to_nvfp4(w) && machine.fp4_flop_s > 0) return Operands::fp4;
  if (w.format == WeightFormat::fp8 && w.inputs == InputRounding::fp8) return Operands::fp8;
  return Operands::bf16;
}

double peak(const Machine& machine, Operands kind) {
  return kind == Operands::fp4 ? machine.fp4_flop_s : kind == Operands::fp8 ? machine.fp8_flop_s : machine.bf16_flop_s;
}

/// Per weight, for up to 8, 16, 32 and 64 sequences, of SwiGLU or not what costs more; tools/sass_check --count prints
/// them (but for weights of few rows, "small").
struct Instructions {
  const char* name;
  double per_weight[4];
};
const Instructions& instructions(const ops::Linear& w) {
  static constexpr Instructions kNvfp4{"nvfp4", {2.6, 2.6, 3.3, 4.7}}, kFp8{"fp8", {4.2, 4.5, 5.3, 6.7}},
      kBf16{"bf16", {3.5, 3.8, 5.3, 8.7}}, kNvfp4Twice{"nvfp4 x nvfp4", {2.6, 2.6, 6.2, 6.2}};
  if (w.format == WeightFormat::bf16) return kBf16;
  if (w.format == WeightFormat::fp8) return kFp8;
  return rounds_to_nvfp4(w) ? kNvfp4Twice : kNvfp4;
}

double weights_of(const ops::Linear& w) {
  return static_cast<double>(w.out) * static_cast<double>(w.in);
}

/// How far apart two numbers are, as a ratio.
double distance(int64_t a, int64_t b) {
  return std::abs(
      std::log(static_cast<double>(std::max<int64_t>(a, 1)) / static_cast<double>(std::max<int64_t>(b, 1))));
}

double share_of(const ProjectionOptions& options, int64_t depth, int64_t sequences) {
  if (options.share) return *options.share;
  return std::ranges::min_element(options.reached, {},
                                  [&](const ReachedShare& r) {
                                    return std::pair(distance(r.sequences, sequences), distance(r.depth, depth));
                                  })
      ->share;
}

class Projector {
 public:
  Projector(const model::Weights& weights, const Machine& machine, const ProjectionOptions& options)
      : weights_(weights), options_(options) {
    out_.machine = machine;
    weights.for_each_linear([&](std::string_view name, const ops::Linear& w) { linears_.emplace_back(name, &w); });
  }

  Result<Projection> run() {
    for (const auto& [name, w] : linears_) {
      if (w->format != WeightFormat::f32) continue;
      return unsupported("bench --project: {}: expected BF16, FP8 or NVFP4, got F32, which has no kernel on a GPU",
                         name)
          .with_hint("--format bf16 or nvfp4");
    }
    out_.share_source = options_.share ? fmt::format("--share {}", *options_.share) : options_.reached_source;
    out_.weight_bytes_per_token = model::bytes_per_token(weights_);
    formats();
    for (const int64_t depth : options_.depths) out_.speech.push_back(step(depth, 1));
    for (const int64_t sequences : options_.batches) out_.speech.push_back(step(options_.batch_depth, sequences));
    for (const int64_t tokens : options_.prompts) out_.prompts.push_back(prompt(tokens));
    return out_;
  }

 private:
  void formats() {
    std::map<std::string, ProjectedFormat> found;
    bool used[3] = {};
    for (const auto& [name, w] : linears_) {
      const Instructions& counted = instructions(*w);
      ProjectedFormat& format = found[counted.name];
      format.name = counted.name;
      format.weights += static_cast<uint64_t>(w->out * w->in);
      format.bytes += w->weight_bytes();
      std::ranges::copy(counted.per_weight, format.needed);
      if (name != "lm_head") used[static_cast<size_t>(operands(*w, out_.machine))] = true;
    }
    for (auto& [name, format] : found) {
      format.available = out_.machine.lane_instructions_per_second() / out_.machine.bytes_per_second *
                         static_cast<double>(format.bytes) / static_cast<double>(format.weights);
      out_.formats.push_back(format);
    }
    static constexpr const char* kNames[] = {"BF16", "FP8", "FP4"};
    for (size_t i = 0; i < 3; ++i) {
      if (used[i]) out_.products += (out_.products.empty() ? "" : " and ") + std::string(kNames[i]);
    }
  }

  ProjectedStep step(int64_t depth, int64_t sequences) const {
    const Machine& machine = out_.machine;
    ProjectedStep step{.depth = depth, .sequences = sequences};
    step.bytes = out_.weight_bytes_per_token +
                 static_cast<uint64_t>(sequences) * model::state_bytes_per_token(weights_.config, depth, DType::bf16);
    step.bytes_ms = static_cast<double>(step.bytes) / machine.bytes_per_second * 1e3;
    const auto* bucket = std::ranges::lower_bound(kBatches, sequences);
    double instructions_needed = 0;
    for (const auto& [name, w] : linears_) {
      instructions_needed += weights_of(*w) * instructions(*w).per_weight[bucket - kBatches];
    }
    step.instructions_ms = instructions_needed / machine.lane_instructions_per_second() * 1e3;
    step.ceiling_tok_s = static_cast<double>(sequences) / std::max(step.bytes_ms, step.instructions_ms) * 1e3;
    step.share = share_of(options_, depth, sequences);
    step.tok_s = step.ceiling_tok_s * step.share;
    return step;
  }

  ProjectedPrompt prompt(int64_t tokens) const {
    const Machine& machine = out_.machine;
    const int64_t pieces = (tokens + kPiece - 1) / kPiece;
    double seconds = 0;
    for (const auto& [name, w] : linears_) {
      const double read = static_cast<double>(w->weight_bytes()) / machine.bytes_per_second;
      const double products = 2 * weights_of(*w) * static_cast<double>(tokens) / peak(machine, operands(*w, machine));
      seconds += name == "lm_head" ? read : std::max(read * static_cast<double>(pieces), products);
    }
    return {.tokens = tokens, .floor_ms = seconds * 1e3, .most_tok_s = static_cast<double>(tokens) / seconds};
  }

  const model::Weights& weights_;
  const ProjectionOptions& options_;
  std::vector<std::pair<std::string, const ops::Linear*>> linears_;
  Projection out_;
};

}  // namespace

std::vector<ReachedShare> default_reached() {
  return {{128, 1, 0.668},  {2048, 1, 0.672}, {16384, 1, 0.690}, {65536, 1, 0.719},
          {2048, 4, 0.613}, {2048, 8, 0.611}, {2048, 16, 0.537}, {2048, 64, 0.601}};
}

Result<std::vector<ReachedShare>> reached_shares(const Json& report) {
  std::vector<ReachedShare> shares;
  const auto speech = report.is_object() ? report.find("speech") : report.end();
  if (speech == report.end() || !speech->is_array() || speech->empty()) {
    return corrupt("expected the report of nibble bench --device cuda --json, found no \"speech\"");
  }
  for (const Json& point : *speech) {
    ReachedShare share{};
    for (const auto& [key, value] : {std::pair{"depth", &share.depth}, {"sequences", &share.sequences}}) {
      const auto number = point.is_object() ? point.find(key) : point.end();
      if (number == point.end() || !number->is_number_integer()) return corrupt("speech: expected a whole {}", key);
      *value = number->get<int64_t>();
    }
    const auto reached = point.find("share_of_probe");
    if (reached == point.end() || !reached->is_number()) return corrupt("speech: expected share_of_probe");
    share.share = reached->get<double>();
    if (!(share.share > 0 && share.share <= 1.5)) {
      return corrupt("speech: share_of_probe: expected a share, got {}", share.share);
    }
    shares.push_back(share);
  }
  return shares;
}

Result<Projection> project(const model::Weights& weights, const Machine& machine, const ProjectionOptions& options) {
  NIBBLE_CHECK(options.share || !options.reached.empty());
  return Projector(weights, machine, options).run();
}

Json Projection::json() const {
  Json kinds = Json::array(), reading = Json::array(), speaking = Json::array();
  for (const ProjectedFormat& f : formats) {
    kinds.push_back({{"format", f.name},
                     {"weights", f.weights},
                     {"bytes", f.bytes},
                     {"instructions_per_weight", f.needed},
                     {"instructions_available", f.available}});
  }
  for (const ProjectedStep& s : speech) {
    speaking.push_back({{"depth", s.depth},
                        {"sequences", s.sequences},
                        {"bytes", s.bytes},
                        {"bytes_ms", s.bytes_ms},
                        {"instructions_ms", s.instructions_ms},
                        {"ceiling_tok_s", s.ceiling_tok_s},
                        {"share", s.share},
                        {"tok_s", s.tok_s}});
  }
  for (const ProjectedPrompt& p : prompts) {
    reading.push_back({{"tokens", p.tokens}, {"floor_ms", p.floor_ms}, {"most_tok_s", p.most_tok_s}});
  }
  return {{"projected", true},
          {"machine",
           {{"name", machine.name},
            {"title", machine.title},
            {"gb_s", machine.bytes_per_second * 1e-9},
            {"gb_s_source", machine.bytes_source},
            {"nominal_gb_s", machine.nominal_bytes_per_second * 1e-9},
            {"flop_source", machine.flop_source}}},
          {"share_source", share_source},
          {"weight_bytes_per_token", weight_bytes_per_token},
          {"formats", kinds},
          {"products", products},
          {"speech", speaking},
          {"prompts", reading}};
}

}  // namespace nibble::gate
