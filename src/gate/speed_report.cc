#include "gate/speed_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace nibble::gate {
namespace {

constexpr size_t kDriftValues = 9;  // three in a third
constexpr double kColdCached = 0.1, kWarmCached = 0.5, kShortReply = 0.5;

double drift_of(std::span<const double> values) {
  if (values.size() < kDriftValues) return 0;
  const size_t third = values.size() / 3;
  const auto median_of = [](std::span<const double> part) { return median({part.begin(), part.end()}); };
  const double first = median_of(values.first(third)), last = median_of(values.last(third));
  return first > 0 ? last / first - 1 : 0;
}

double median_or(const std::vector<double>& values, double nothing) {
  return values.empty() ? nothing : distribution(values).p50;
}

// The values of one point while records come in.
struct Gathered {
  SpeedPoint point;
  std::vector<double> headers, ttft, ttfat, decode, reply, prompt, cached, completion, server_prompt, server_decode;
  std::vector<std::vector<double>> between;
  double begin_ms = 0, end_ms = 0, busy_ms = 0, tokens = 0;

  void add(const SpeedRecord& record) {
    if (busy_ms == 0) begin_ms = record.begin_ms;
    begin_ms = std::min(begin_ms, record.begin_ms);
    end_ms = std::max(end_ms, record.end_ms);
    busy_ms += record.end_ms - record.begin_ms;
    if (!record.error.empty()) {
      ++point.failed;
      if (point.why.empty()) point.why = record.error;
      return;
    }
    const StreamedReply& said = record.said;
    const auto take = [](double value, std::vector<double>& values) {
      if (value >= 0) values.push_back(value);
    };
    take(said.times.headers_ms, headers);
    take(said.times.first_chunk_ms, ttft);
    take(said.times.first_answer_ms, ttfat);
    take(said.times.end_ms, reply);
    if (const double speed = said.decode_tok_s(); speed > 0) decode.push_back(speed);
    if (auto gaps = gate::between_tokens_ms(said); !gaps.empty()) between.push_back(std::move(gaps));
    take(static_cast<double>(said.usage.prompt_tokens), prompt);
    take(static_cast<double>(said.usage.cached_tokens), cached);
    take(static_cast<double>(said.usage.completion_tokens), completion);
    take(said.timings.prompt_ms, server_prompt);
    take(said.timings.predicted_per_second, server_decode);
    tokens += said.usage.completion_tokens >= 0 ? static_cast<double>(said.usage.completion_tokens)
                                                : static_cast<double>(said.times.answer_ms.size());
  }

  SpeedPoint finish() {
    point.prompt_tokens = median_or(prompt, -1);
    point.cached_tokens = median_or(cached, -1);
    point.completion_tokens = median_or(completion, -1);
    point.headers_ms = timing(headers);
    point.ttft_ms = timing(ttft);
    point.ttfat_ms = timing(ttfat);
    point.between_tokens_ms = timing_of_groups(std::move(between));
    point.decode_tok_s = timing(decode);
    point.reply_ms = timing(reply);
    point.server_prompt_ms = distribution(server_prompt);
    point.server_decode_tok_s = distribution(server_decode);
    if (end_ms > begin_ms) {
      point.tok_s = tokens / (end_ms - begin_ms) * 1e3;
      point.in_flight = busy_ms / (end_ms - begin_ms);
    }
    return std::move(point);
  }
};

bool same_point(const SpeedPoint& point, const SpeedRecord& record) {
  return point.sweep == record.sweep && point.size == record.size && point.warm == record.warm;
}

Growth growth_of(const std::vector<SpeedRecord>& records) {
  std::vector<double> early, late, all;
  for (const SpeedRecord& record : records) {
    const double at = record.said.times.first_answer_ms;
    if (record.sweep != Sweep::conversation || !record.error.empty() || at < 0) continue;
    if (record.size >= 2) all.push_back(at);
    if (record.size >= 2 && record.size <= 4) early.push_back(at);
    if (record.size >= 16 && record.size <= 20) late.push_back(at);
  }
  Growth growth{.early = timing(early), .late = timing(late), .all = timing(all)};
  if (early.empty() || late.empty() || *std::min_element(early.begin(), early.end()) <= 0) return growth;
  growth.ratio = growth.late.spread.p50 / growth.early.spread.p50;
  growth.interval = median_ratio_bootstrap_95(late, early);
  return growth;
}

void add_figure(std::string id, std::string what, std::string unit, const Timing& timing, SpeedReport& report) {
  if (timing.spread.n == 0) return;
  report.figures.push_back({std::move(id), std::move(what), std::move(unit), timing.spread.n, timing.spread.p50,
                            timing.median, timing.spread.p95});
}

// The first token at every context, growth, decode at the shortest and at the deepest context, tokens of all clients.
void add_figures(SpeedReport& report) {
  const std::vector<const SpeedPoint*> contexts = report.of(Sweep::context);
  for (const SpeedPoint* point : contexts) {
    add_figure(fmt::format("ttfat_{}_{}", point->warm ? "warm" : "cold", point->size),
               "first token of an answer, " + title(*point), "ms", point->ttfat_ms, report);
  }
  add_figure("ttfat_turns", "first token of an answer, turns from 2 on", "ms", report.growth.all, report);
  if (report.growth.ratio > 0) {
    report.figures.push_back({"ttfat_growth", "first token of turns 16-20 by that of turns 2-4", "",
                              report.growth.late.spread.n, report.growth.ratio, report.growth.interval});
  }
  for (const SpeedPoint* point : contexts) {
    if (point->warm) continue;
    add_figure(fmt::format("decode_{}", point->size), "decode after " + std::to_string(point->size) + " tokens",
               "tok/s", point->decode_tok_s, report);
  }
  for (const SpeedPoint* point : report.of(Sweep::concurrency)) {
    if (point->reply_ms.spread.n == 0) continue;
    report.figures.push_back({fmt::format("tok_s_{}", point->size), "all replies together, " + title(*point), "tok/s",
                              point->reply_ms.spread.n, point->tok_s});
  }
}

void add_remarks(const SpeedRun& run, SpeedReport& report) {
  const auto say = [&](std::string text) { report.remarks.push_back(std::move(text)); };
  for (const std::string& line : run.skipped) say("left out: " + line);
  if (!run.sizes_measured && !run.records.empty()) {
    say("the server does not count prompt tokens, so the sizes of prompts are estimates");
  }
  for (const SpeedPoint& point : report.points) {
    const std::string name = title(point);
    if (point.failed > 0) say(fmt::format("{}: {} failed: {}", name, point.failed, point.why));
    const auto drift = [&](const char* what, const Timing& timing) {
      if (timing.drifts()) say(fmt::format("{}: {} drifts by {:+.0f} %", name, what, 100 * timing.drift));
    };
    drift("first token", point.ttfat_ms);
    drift("decode", point.decode_tok_s);
    const double cached = point.prompt_tokens > 0 ? point.cached_tokens / point.prompt_tokens : -1;
    if (point.sweep == Sweep::context && !point.warm && cached > kColdCached) {
      say(fmt::format("{}: {:.0f} % came from the server's cache; another --seed makes new prompts", name,
                      100 * cached));
    }
    if (point.sweep == Sweep::context && point.warm && cached >= 0 && cached < kWarmCached) {
      say(fmt::format("{}: only {:.0f} % came from the server's cache", name, 100 * cached));
    }
    if (point.sweep == Sweep::output && point.completion_tokens >= 0 &&
        point.completion_tokens < kShortReply * static_cast<double>(point.size)) {
      say(fmt::format("{}: the replies have {:.0f}; --ignore-eos makes them longer where the server knows it", name,
                      point.completion_tokens));
    }
  }
}
}  // namespace

bool Timing::drifts() const {
  return std::abs(drift) > kDriftLimit;
}

Timing timing(const std::vector<double>& values) {
  if (values.empty()) return {};
  std::vector<std::vector<double>> groups;
  for (const double value : values) groups.push_back({value});
  return timing_of_groups(std::move(groups));
}

Timing timing_of_groups(std::vector<std::vector<double>> groups) {
  std::erase_if(groups, [](const auto& group) { return group.empty(); });
  if (groups.empty()) return {};
  std::vector<double> all, medians;
  for (const std::vector<double>& group : groups) {
    all.insert(all.end(), group.begin(), group.end());
    medians.push_back(median(group));
  }
  return {.spread = distribution(std::move(all)), .median = median_bootstrap_95(groups), .drift = drift_of(medians)};
}

std::vector<double> between_tokens_ms(const StreamedReply& reply) {
  const std::vector<double>& at = reply.times.answer_ms;
  const int64_t tokens = reply.usage.completion_tokens - std::max<int64_t>(0, reply.usage.reasoning_tokens);
  const auto deltas = static_cast<int64_t>(at.size());
  const bool one_each = reply.usage.completion_tokens < 0 || std::abs(tokens - deltas) <= 1;
  const double in_a_delta =
      one_each ? 1 : std::max(1.0, static_cast<double>(tokens) / static_cast<double>(std::max<int64_t>(1, deltas)));
  std::vector<double> gaps;
  for (size_t i = 1; i < at.size(); ++i) gaps.push_back((at[i] - at[i - 1]) / in_a_delta);
  return gaps;
}

std::vector<const SpeedPoint*> SpeedReport::of(Sweep sweep) const {
  std::vector<const SpeedPoint*> found;
  for (const SpeedPoint& point : points) {
    if (point.sweep == sweep) found.push_back(&point);
  }
  return found;
}

SpeedReport speed_report(const SpeedRun& run) {
  SpeedReport report;
  std::vector<Gathered> gathered;
  if (!run.records.empty() && run.records[0].said.times.first_answer_ms >= 0) {
    report.first_ttfat_ms = run.records[0].said.times.first_answer_ms;
  }
  for (const SpeedRecord& record : run.records) {
    if (!record.counted) continue;
    ++report.requests;
    report.failed += !record.error.empty();
    auto at = std::find_if(gathered.begin(), gathered.end(),
                           [&](const Gathered& one) { return same_point(one.point, record); });
    if (at == gathered.end()) {
      at = gathered.emplace(gathered.end());
      at->point.sweep = record.sweep;
      at->point.size = record.size;
      at->point.warm = record.warm;
    }
    at->add(record);
  }
  for (Gathered& one : gathered) report.points.push_back(one.finish());
  report.growth = growth_of(run.records);
  add_figures(report);
  add_remarks(run, report);
  return report;
}

}  // namespace nibble::gate
