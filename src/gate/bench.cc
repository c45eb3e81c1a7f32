#include "gate/bench.h"

#include <algorithm>
#include <atomic>

#include "base/clock.h"
#include "base/machine.h"
#include "base/rng.h"
#include "gate/stats.h"
#include "model/forward.h"

namespace nibble::gate {
namespace {

int32_t argmax(const Tensor& logits) {
  const auto row = logits.f32_span();
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

struct Timing {
  double ttft_s = 0, decode_s = 0;
};

Result<Timing> run_once(Context& cx, const model::Weights& weights, std::span<const int32_t> ids, int64_t decode_tokens,
                        model::State& state) {
  const Arena::Scope scope(cx.arena);
  Tensor logits = cx.arena.f32({1, weights.config.vocab}), hidden = cx.arena.f32({1, weights.config.hidden});
  state.reset();
  Timing timing;
  Stopwatch clock;
  NIBBLE_RETURN_IF_ERROR(model::read_prompt(cx, weights, ids, state, logits));
  int32_t id = argmax(logits);
  timing.ttft_s = clock.seconds();
  clock = {};
  for (int64_t i = 0; i < decode_tokens; ++i) {
    NIBBLE_RETURN_IF_ERROR(model::forward(cx, weights, {&id, 1}, state, hidden));
    model::head(cx, weights, hidden, logits);
    id = argmax(logits);
  }
  timing.decode_s = clock.seconds();
  return timing;
}

// By the passes of a server: the prompt in one, then steps.
Status profile(Context& cx, const model::Weights& weights, std::span<const int32_t> ids, const BenchOptions& options,
               BenchPoint& point) {
  const auto depth = static_cast<int64_t>(ids.size());
  NIBBLE_TRY(runner, model::BatchRunner::create(cx, weights, {.capacity = depth + options.decode_tokens}));
  std::vector<double> read_us, step_us;
  for (int i = 0; i < options.repeats; ++i) {
    const Stopwatch clock;
    NIBBLE_RETURN_IF_ERROR(runner->read(0, 0, ids));
    read_us.push_back(1e3 * clock.ms());
  }
  NIBBLE_TRY(prompt, prompt_ops(cx, *runner, weights, ids, options.repeats, median(read_us)));
  const model::Speaker speaker{.position = depth};
  NIBBLE_RETURN_IF_ERROR(runner->set({&speaker, 1}));
  for (int64_t i = 0; i < options.decode_tokens; ++i) {
    const Stopwatch clock;
    NIBBLE_RETURN_IF_ERROR(runner->step());
    step_us.push_back(1e3 * clock.ms());
  }
  const int64_t middle = depth + options.decode_tokens / 2;
  NIBBLE_TRY(step, step_ops(cx, *runner, weights, {speaker}, middle, median(step_us)));
  point.prompt_ops = std::move(prompt);
  point.step_ops = std::move(step);
  return {};
}

}  // namespace

std::vector<int32_t> random_ids(int64_t n, int64_t vocab) {
  Rng rng(1);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint32_t>(vocab)));
  return ids;
}

double probe_read_bandwidth(ThreadPool& pool) {
  constexpr size_t kBytes = size_t{512} << 20, kGrain = size_t{1} << 17;
  const Buffer buffer(kBytes);
  const auto* words = reinterpret_cast<const uint64_t*>(buffer.data());
  constexpr auto kWords = static_cast<int64_t>(kBytes / sizeof(uint64_t));
  std::atomic<uint64_t> sink = 0;
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    Stopwatch clock;
    pool.parallel_for(kWords, kGrain, [&](int64_t begin, int64_t end) {
      uint64_t sum = 0;
      for (int64_t i = begin; i < end; ++i) sum += words[i];
      sink.fetch_add(sum, std::memory_order_relaxed);
    });
    best = std::max(best, static_cast<double>(kBytes) / clock.seconds() * 1e-9);
  }
  NIBBLE_CHECK(sink == 0);  // the buffer is all zeros; reading the sum keeps the loop alive
  return best;
}

Result<BenchReport> bench(Context& cx, const model::Weights& weights, const BenchOptions& options,
                          const Progress& progress) {
  const int64_t longest = *std::max_element(options.depths.begin(), options.depths.end());
  const int64_t capacity = longest + options.decode_tokens;
  if (capacity > weights.config.max_positions) {
    return invalid_argument("--depths: expected at most {} tokens with the reply, got {}", weights.config.max_positions,
                            capacity);
  }
  const DType kv = cx.numeric == Numeric::exact ? DType::f32 : DType::bf16;
  BenchReport report;
  report.machine = machine_name();
  report.numeric = name(cx.numeric);
  report.threads = cx.pool.threads();
  report.probe_gb_s = probe_read_bandwidth(cx.pool);
  report.weight_bytes_per_token = model::bytes_per_token(weights);

  const std::vector<int32_t> ids = random_ids(longest, weights.config.vocab);
  model::State state(weights.config, capacity, kv);
  uint64_t done = 0;
  const auto total = static_cast<uint64_t>(options.depths.size()) * static_cast<uint64_t>(options.repeats);
  for (const int64_t depth : options.depths) {
    std::vector<double> ttft, decode;
    for (int i = 0; i < options.repeats; ++i) {
      nibble::report(progress, done++, total, fmt::format("depth {}", depth));
      NIBBLE_TRY(timing, run_once(cx, weights, {ids.data(), static_cast<size_t>(depth)}, options.decode_tokens, state));
      ttft.push_back(timing.ttft_s);
      decode.push_back(timing.decode_s / static_cast<double>(options.decode_tokens));
    }
    BenchPoint point{.depth = depth, .ttft_ms = median(ttft) * 1e3};
    point.prefill_tok_s = static_cast<double>(depth) / median(ttft);
    const double step_s = median(decode);
    const uint64_t bytes = report.weight_bytes_per_token +
                           model::state_bytes_per_token(weights.config, depth + options.decode_tokens / 2, kv);
    point.decode_tok_s = 1 / step_s;
    point.decode_gb_s = static_cast<double>(bytes) / step_s * 1e-9;
    point.decode_share = point.decode_gb_s / report.probe_gb_s;
    if (options.profile) {
      NIBBLE_RETURN_IF_ERROR(profile(cx, weights, {ids.data(), static_cast<size_t>(depth)}, options, point));
    }
    report.points.push_back(std::move(point));
  }
  nibble::report(progress, total, total, "done");
  return report;
}

Json BenchReport::json() const {
  Json rows = Json::array();
  for (const BenchPoint& p : points) {
    Json row = {{"depth", p.depth},
                {"ttft_ms", p.ttft_ms},
                {"prefill_tok_s", p.prefill_tok_s},
                {"decode_tok_s", p.decode_tok_s},
                {"decode_gb_s", p.decode_gb_s},
                {"decode_share_of_probe", p.decode_share}};
    if (!p.step_ops.empty()) {
      row["profile"] = {{"prompt", p.prompt_ops.json(probe_gb_s)}, {"step", p.step_ops.json(probe_gb_s)}};
    }
    rows.push_back(std::move(row));
  }
  return {{"machine", machine},
          {"threads", threads},
          {"numeric", numeric},
          {"probe_gb_s", probe_gb_s},
          {"weight_bytes_per_token", weight_bytes_per_token},
          {"points", rows}};
}

}  // namespace nibble::gate
