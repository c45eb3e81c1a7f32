#include "quantize/budget.h"

#include <algorithm>
#include <cmath>

#include "tensor/numeric.h"

namespace nibble::quantize {
namespace {

constexpr int64_t kFrontSteps = 24;

double bits_of(int64_t bytes, int64_t weights) {
  return 8 * static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(1, weights));
}

Format format_of(size_t index) {
  return kMixedFormats[index];
}

}  // namespace

int64_t stored_bytes(const FormatGroup& group, Format format) {
  switch (format) {
    case Format::nvfp4:
      return group.weights / 2 + group.weights / kNvfp4Block;
    case Format::fp8:
    case Format::fp8_channel:
      return group.weights;
    case Format::unchanged:
      break;
  }
  return group.source_bytes;
}

Result<int64_t> budget_bytes(const Plan& plan, const std::vector<FormatGroup>& groups, const Budget& budget) {
  int64_t weights = 0, least = 0;
  for (const FormatGroup& group : groups) {
    weights += group.weights;
    least += stored_bytes(group, Format::nvfp4);
  }
  if (budget.effective_bits) return static_cast<int64_t>(*budget.effective_bits * static_cast<double>(weights) / 8);
  const bool file = budget.max_bytes.has_value();
  const double all = file ? static_cast<double>(*budget.max_bytes) : budget.bytes_per_second / *budget.min_tok_s;
  const double others = static_cast<double>(file ? plan.bytes : plan.bytes_per_token) - static_cast<double>(least);
  if (all < others + static_cast<double>(least)) {
    return invalid_argument(
               "budget: expected at least {:.0f} bytes {}, which everything in four bits takes, got {:.0f}",
               others + static_cast<double>(least), file ? "of file" : "read per token", all)
        .with_hint("allow more, or quantize the head as well (a recipe with a rule for lm_head)");
  }
  return static_cast<int64_t>(all - others);
}

Result<MixedChoice> choose_formats(std::vector<FormatGroup> groups, int64_t budget) {
  std::vector<std::vector<KnapsackOption>> options;
  int64_t weights = 0, least = 0, most = 0;
  for (FormatGroup& group : groups) {
    group.scores.resize(std::size(kMixedFormats), 0);
    std::vector<KnapsackOption>& of_group = options.emplace_back();
    for (size_t f = 0; f < std::size(kMixedFormats); ++f) {
      of_group.push_back({stored_bytes(group, format_of(f)), group.scores[f]});
    }
    make_monotone(of_group);
    for (size_t f = 0; f < of_group.size(); ++f) group.scores[f] = of_group[f].score;
    weights += group.weights;
    least += of_group.front().cost;
    most += of_group.back().cost;
  }
  NIBBLE_TRY(best, knapsack(options, budget));
  MixedChoice choice;
  for (int64_t step = 0; step <= kFrontSteps; ++step) {
    const int64_t at = least + (most - least) * step * step / (kFrontSteps * kFrontSteps);  // denser where it is steep
    NIBBLE_TRY(point, knapsack(options, at));
    choice.front.emplace_back(bits_of(point.cost, weights), point.score);
  }
  choice.groups = std::move(groups);
  for (int option : best.choice) choice.formats.push_back(format_of(static_cast<size_t>(option)));
  choice.score = best.score;
  choice.bits = bits_of(best.cost, weights);
  return choice;
}

std::map<std::string, FormatChoice> plan_formats(const MixedChoice& choice, Inputs nvfp4_inputs) {
  std::map<std::string, FormatChoice> formats;
  for (size_t i = 0; i < choice.groups.size(); ++i) {
    const Format format = choice.formats[i];
    formats[choice.groups[i].name] = {format, format == Format::nvfp4 ? nvfp4_inputs : Inputs::a16};
  }
  return formats;
}

Json to_json(const MixedChoice& choice) {
  Json groups = Json::array();
  for (size_t i = 0; i < choice.groups.size(); ++i) {
    const FormatGroup& group = choice.groups[i];
    groups.push_back({{"group", group.name},
                      {"modules", group.modules},
                      {"weights", group.weights},
                      {"scores", group.scores},
                      {"format", checkpoint::format_name(choice.formats[i])}});
  }
  return {{"score", choice.score}, {"bits", choice.bits}, {"front", choice.front}, {"groups", groups}};
}

}  // namespace nibble::quantize
