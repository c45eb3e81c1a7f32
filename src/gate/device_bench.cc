#include "gate/device_bench.h"

#include <algorithm>

#include "base/clock.h"
#include "gate/bench.h"
#include "gate/stats.h"
#include "model/batch_runner.h"
#include "model/state.h"

namespace nibble::gate {
namespace {

constexpr size_t kProbeBytes = size_t{2} << 30;

Result<double> copy_bandwidth(Stream& stream) {
  constexpr size_t kBytes = kProbeBytes;
  NIBBLE_TRY(from, Buffer::on(stream.device(), kBytes));
  NIBBLE_TRY(to, Buffer::on(stream.device(), kBytes));
  std::vector<double> rates;
  for (int i = 0; i < 8; ++i) {
    NIBBLE_TRY(ms, stream.time_ms([&] { stream.copy(from.data(), to.data(), kBytes); }));
    if (i > 0) rates.push_back(2.0 * kBytes / ms * 1e-6);
  }
  return median(rates);
}

double multiplications(const model::Weights& weights) {
  double sum = 0;
  weights.for_each_linear([&](std::string_view name, const ops::Linear& w) {
    if (name != "lm_head") sum += static_cast<double>(w.out) * static_cast<double>(w.in);
  });
  return sum;
}

int64_t largest(const std::vector<int64_t>& values, int64_t floor) {
  return values.empty() ? floor : std::max(floor, *std::ranges::max_element(values));
}

// The runners that are made, one after the other.
int64_t room(const DeviceBenchOptions& options) {
  return (options.decode_tokens + 1) * (options.repeats + 1);
}
model::RunnerOptions alone_options(const DeviceBenchOptions& o) {
  return {.slots = 1, .capacity = std::max(largest(o.prompts, 1), largest(o.depths, 1)) + room(o)};
}
model::RunnerOptions together_options(const DeviceBenchOptions& o) {
  return {.slots = std::max(largest(o.batches, 1), largest(o.sampled, 1)), .capacity = o.batch_depth + room(o)};
}

// As the model cards of Qwen say for replies without thinking, with penalties that look at all that was seen.
ops::SampleRule drawing(int64_t slot) {
  return {.temperature = 0.7f,
          .top_p = 0.8f,
          .top_k = 20,
          .presence = 1.5f,
          .repetition = 1.05f,
          .seen = static_cast<int32_t>(slot),
          .seed = static_cast<uint64_t>(slot) + 1};
}

class Bench {
 public:
  Bench(Context& cx, const model::Weights& weights, const DeviceBenchOptions& options, const Progress& progress)
      : cx_(cx), weights_(weights), options_(options), progress_(progress) {
    total_ = options.prompts.size() + options.depths.size() + options.batches.size() + options.sampled.size();
  }

  Result<DeviceBenchReport> run() {
    NIBBLE_TRY(info, open_device(cx_.device));
    out_.device = info;
    NIBBLE_TRY(probe, copy_bandwidth(*cx_.stream));
    out_.probe_gb_s = probe;
    out_.weight_bytes_per_token = model::bytes_per_token(weights_);
    for (const Buffer& buffer : weights_.buffers) out_.weight_bytes += buffer.bytes();
    const int64_t deepest = std::max(largest(options_.prompts, 1), largest(options_.depths, 1));
    ids_ = random_ids(std::max(deepest, options_.batch_depth), weights_.config.vocab);
    NIBBLE_RETURN_IF_ERROR(alone());
    NIBBLE_RETURN_IF_ERROR(together());
    report(progress_, total_, total_, "done");
    return out_;
  }

 private:
  Status alone() {
    if (options_.prompts.empty() && options_.depths.empty()) return {};
    NIBBLE_TRY(runner, make(alone_options(options_)));
    for (const int64_t tokens : options_.prompts) {
      report(progress_, done_++, total_, fmt::format("prompt of {}", tokens));
      std::vector<double> times;
      for (int i = 0; i <= options_.repeats; ++i) {
        const Stopwatch clock;
        int32_t first = 0;
        NIBBLE_RETURN_IF_ERROR(runner->read(0, 0, prompt(tokens)));
        NIBBLE_RETURN_IF_ERROR(runner->chosen({&first, 1}));
        if (i > 0) times.push_back(clock.ms());  // the first warms up
      }
      const double ms = median(times);
      PromptPoint point{.tokens = tokens,
                        .ms = ms,
                        .tok_s = static_cast<double>(tokens) / ms * 1e3,
                        .tflop_s = 2 * multiplications(weights_) * static_cast<double>(tokens) / ms * 1e-9};
      if (options_.profile) {
        NIBBLE_TRY(ops, prompt_ops(cx_, *runner, weights_, prompt(tokens), options_.repeats, 1e3 * ms));
        point.ops = std::move(ops);
      }
      out_.prompts.push_back(std::move(point));
    }
    for (const int64_t depth : options_.depths) NIBBLE_RETURN_IF_ERROR(speak(*runner, 1, depth));
    return {};
  }

  Status together() {
    if (options_.batches.empty() && options_.sampled.empty()) return {};
    NIBBLE_TRY(runner, make(together_options(options_)));
    for (const int64_t batch : options_.batches) {
      NIBBLE_RETURN_IF_ERROR(speak(*runner, batch, options_.batch_depth));
    }
    for (const int64_t sequences : options_.sampled) NIBBLE_RETURN_IF_ERROR(draw(*runner, sequences));
    return {};
  }

  Result<std::unique_ptr<model::BatchRunner>> make(const model::RunnerOptions& options) {
    if (options.capacity > weights_.config.max_positions) {
      return invalid_argument("bench: expected at most {} tokens with the reply, got {}", weights_.config.max_positions,
                              options.capacity);
    }
    out_.state_bytes = std::max(out_.state_bytes, model::BatchRunner::bytes_needed(weights_.config, options));
    return model::BatchRunner::create(cx_, weights_, options);
  }

  // Sequences that have read their prompts.
  Result<std::vector<model::Speaker>> listen(model::BatchRunner& runner, int64_t sequences, int64_t depth) {
    std::vector<model::Speaker> speakers;
    for (int64_t s = 0; s < sequences; ++s) {
      NIBBLE_RETURN_IF_ERROR(runner.read(s, 0, prompt(depth)));
      int32_t first = 0;
      NIBBLE_RETURN_IF_ERROR(runner.chosen({&first, 1}));
      speakers.push_back({.slot = s, .position = depth, .id = first});
    }
    return speakers;
  }

  Result<double> step_ms(model::BatchRunner& runner, std::span<const model::Speaker> speakers) {
    NIBBLE_RETURN_IF_ERROR(runner.set(speakers));
    std::vector<double> times;
    for (int i = 0; i <= options_.repeats; ++i) {
      Status status;
      NIBBLE_TRY(ms, cx_.stream->time_ms([&] {
        for (int64_t n = 0; n < options_.decode_tokens && status.ok(); ++n) status = runner.step();
      }));
      NIBBLE_RETURN_IF_ERROR(std::move(status));
      if (i > 0) times.push_back(ms / static_cast<double>(options_.decode_tokens));
    }
    return median(times);
  }
  // Where sequences of that depth stand halfway through step_ms().
  int64_t middle(int64_t depth) const { return depth + options_.decode_tokens * (options_.repeats + 1) / 2; }

  Status speak(model::BatchRunner& runner, int64_t sequences, int64_t depth) {
    report(progress_, done_++, total_, fmt::format("{} at depth {}", sequences, depth));
    NIBBLE_TRY(speakers, listen(runner, sequences, depth));
    NIBBLE_TRY(ms, step_ms(runner, speakers));
    SpeechPoint point{.depth = depth, .sequences = sequences, .step_ms = ms, .nodes = runner.nodes()};
    const auto bytes = static_cast<double>(out_.weight_bytes_per_token) +
                       static_cast<double>(sequences) * static_cast<double>(model::state_bytes_per_token(
                                                            weights_.config, middle(depth), DType::bf16));
    point.tok_s = static_cast<double>(sequences) / point.step_ms * 1e3;
    point.gb_s = bytes / point.step_ms * 1e-6;
    point.share = point.gb_s / out_.probe_gb_s;
    NIBBLE_TRY(ops, profile(runner, speakers, depth, ms));
    point.ops = std::move(ops);
    out_.speech.push_back(std::move(point));
    return {};
  }

  Status draw(model::BatchRunner& runner, int64_t sequences) {
    const int64_t depth = options_.batch_depth;
    report(progress_, done_++, total_, fmt::format("{} at depth {}, sampled", sequences, depth));
    NIBBLE_TRY(speakers, listen(runner, sequences, depth));
    NIBBLE_TRY(greedy_ms, step_ms(runner, speakers));
    for (model::Speaker& speaker : speakers) {
      NIBBLE_RETURN_IF_ERROR(runner.begin_output(speaker.slot, prompt(depth)));
      speaker.rule = drawing(speaker.slot);
    }
    NIBBLE_TRY(ms, step_ms(runner, speakers));
    NIBBLE_TRY(ops, profile(runner, speakers, depth, ms));
    out_.sampled.push_back(
        {.depth = depth, .sequences = sequences, .greedy_ms = greedy_ms, .step_ms = ms, .ops = std::move(ops)});
    return {};
  }

  // Of steps halfway through those that took `ms`.
  Result<OpTable> profile(model::BatchRunner& runner, const std::vector<model::Speaker>& speakers, int64_t depth,
                          double ms) {
    if (!options_.profile) return OpTable{};
    return step_ops(cx_, runner, weights_, speakers, middle(depth), 1e3 * ms);
  }

  std::span<const int32_t> prompt(int64_t tokens) const { return {ids_.data(), static_cast<size_t>(tokens)}; }

  Context& cx_;
  const model::Weights& weights_;
  const DeviceBenchOptions& options_;
  const Progress& progress_;
  std::vector<int32_t> ids_;
  uint64_t done_ = 0, total_ = 0;
  DeviceBenchReport out_;
};

}  // namespace

DeviceBenchOptions fitting(DeviceBenchOptions options, const model::Config& config, bool prompts_asked,
                           bool depths_asked) {
  const int64_t most = std::max<int64_t>(config.max_positions - room(options), 1);
  const auto too_long = [&](int64_t tokens) { return tokens > most; };
  if (!prompts_asked) std::erase_if(options.prompts, too_long);
  if (!depths_asked) std::erase_if(options.depths, too_long);
  options.batch_depth = std::min(options.batch_depth, most);
  return options;
}

uint64_t device_bench_bytes(const model::Config& config, const DeviceBenchOptions& options) {
  uint64_t most = 2 * kProbeBytes;
  if (!options.prompts.empty() || !options.depths.empty()) {
    most = std::max(most, model::BatchRunner::bytes_needed(config, alone_options(options)));
  }
  if (!options.batches.empty() || !options.sampled.empty()) {
    most = std::max(most, model::BatchRunner::bytes_needed(config, together_options(options)));
  }
  return most + (options.profile ? Marks::bytes_needed(kMostMarks) : 0);
}

Result<DeviceBenchReport> device_bench(Context& cx, const model::Weights& weights, const DeviceBenchOptions& options,
                                       const Progress& progress) {
  return Bench(cx, weights, options, progress).run();
}

Json DeviceBenchReport::json() const {
  Json reading = Json::array(), speaking = Json::array(), drawing = Json::array();
  const auto with_ops = [&](Json point, const OpTable& ops) {
    if (!ops.empty()) point["profile"] = ops.json(probe_gb_s);
    return point;
  };
  for (const PromptPoint& p : prompts) {
    reading.push_back(
        with_ops({{"tokens", p.tokens}, {"ms", p.ms}, {"tok_s", p.tok_s}, {"tflop_s", p.tflop_s}}, p.ops));
  }
  for (const SpeechPoint& p : speech) {
    speaking.push_back(with_ops({{"depth", p.depth},
                                 {"sequences", p.sequences},
                                 {"step_ms", p.step_ms},
                                 {"tok_s", p.tok_s},
                                 {"gb_s", p.gb_s},
                                 {"share_of_probe", p.share},
                                 {"graph_nodes", p.nodes}},
                                p.ops));
  }
  for (const SampledPoint& p : sampled) {
    drawing.push_back(with_ops({{"depth", p.depth},
                                {"sequences", p.sequences},
                                {"step_ms", p.step_ms},
                                {"greedy_ms", p.greedy_ms},
                                {"more_ms", p.step_ms - p.greedy_ms}},
                               p.ops));
  }
  return {{"device", device.name},        {"probe_gb_s", probe_gb_s},
          {"weight_bytes", weight_bytes}, {"weight_bytes_per_token", weight_bytes_per_token},
          {"state_bytes", state_bytes},   {"prompts", reading},
          {"speech", speaking},           {"sampled", drawing}};
}

}  // namespace nibble::gate
