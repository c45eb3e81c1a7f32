#include "train/report.h"

#include <algorithm>
#include <cmath>

#include "io/html_page.h"
#include "io/svg_plot.h"

namespace nibble::train {
namespace {

template <class Record>
PlotSeries series(const std::vector<Record>& records, std::string label, double Record::*member) {
  PlotSeries out{std::move(label), {}};
  for (const Record& record : records) out.points.emplace_back(static_cast<double>(record.step), record.*member);
  return out;
}

bool has_points(const PlotSeries& s) {
  return std::any_of(s.points.begin(), s.points.end(), [](const auto& p) { return std::isfinite(p.second); });
}

// Without series that were never measured; nothing when none is left.
std::string figure(std::string title, std::vector<PlotSeries> all) {
  std::erase_if(all, [](const PlotSeries& s) { return !has_points(s); });
  if (all.empty()) return {};
  return "<figure>\n" + svg_plot({.title = std::move(title), .x_label = "step", .series = std::move(all)}) +
         "</figure>\n";
}

void add_validation(const std::vector<EvalRecord>& evals, const char* name, double EvalRecord::*member,
                    ReportRows& rows) {
  const EvalRecord *last = nullptr, *best = nullptr;
  for (const EvalRecord& eval : evals) {
    if (!std::isfinite(eval.*member)) continue;
    last = &eval;
    if (best == nullptr || eval.*member < best->*member) best = &eval;
  }
  if (last == nullptr) return;
  rows.emplace_back(name, fmt::format("{:.5g}, best {:.5g} at step {}", last->*member, best->*member, best->step));
}

ReportRows summary(const Report& report) {
  ReportRows rows;
  const std::vector<StepRecord>& steps = report.metrics.steps;
  if (!steps.empty()) {
    int64_t tokens = 0, loss_tokens = 0, skipped = 0;
    double seconds = 0;
    for (const StepRecord& step : steps) {
      tokens += step.tokens;
      loss_tokens += step.loss_tokens;
      skipped += step.skipped;
      if (std::isfinite(step.seconds)) seconds += step.seconds;
    }
    rows.emplace_back("steps", fmt::format("{}{}", steps.back().step,
                                           skipped > 0 ? fmt::format(", {} updates skipped", skipped) : ""));
    rows.emplace_back("loss", fmt::format("{:.5g} -> {:.5g}", steps.front().loss, steps.back().loss));
    rows.emplace_back("tokens", fmt::format("{}, {} of them trained", tokens, loss_tokens));
    if (seconds > 0) {
      rows.emplace_back("time",
                        fmt::format("{:.1f} s, {:.0f} tokens/s", seconds, static_cast<double>(tokens) / seconds));
    }
  }
  add_validation(report.metrics.evals, "validation CE", &EvalRecord::ce, rows);
  add_validation(report.metrics.evals, "validation KL", &EvalRecord::kl, rows);
  if (!report.metrics.flips.empty()) {
    rows.emplace_back("flipped codes", fmt::format("{:.3g} %", 100 * report.metrics.flips.back().flip));
  }
  rows.insert(rows.end(), report.results.begin(), report.results.end());
  return rows;
}

std::string curves(const RunMetrics& metrics) {
  const auto step = [&](const char* label, double StepRecord::*member) { return series(metrics.steps, label, member); };
  const auto eval = [&](const char* label, double EvalRecord::*member) { return series(metrics.evals, label, member); };
  const auto flip = [&](const char* label, double FlipRecord::*member) { return series(metrics.flips, label, member); };
  return figure("loss", {step("loss", &StepRecord::loss), step("CE", &StepRecord::ce), step("KL", &StepRecord::kl)}) +
         figure("validation cross-entropy", {eval("CE", &EvalRecord::ce)}) +
         figure("validation KL to the teacher", {eval("KL", &EvalRecord::kl)}) +
         figure("behaviour", {eval("cases passed", &EvalRecord::gate_pass), eval("top-1 agreement", &EvalRecord::top1),
                              eval("cut off by length", &EvalRecord::length_capped)}) +
         figure("learning rate", {step("lr", &StepRecord::lr)}) +
         figure("gradient norm", {step("norm", &StepRecord::grad_norm)}) +
         figure("tokens per second", {step("tokens/s", &StepRecord::tok_s)}) +
         figure("changed codes, share of all",
                {flip("codes", &FlipRecord::flip), flip("scales", &FlipRecord::scale_flip),
                 flip("since the last look", &FlipRecord::new_flip), flip("clipped blocks", &FlipRecord::clipped)});
}

}  // namespace

std::string to_html(const Report& report) {
  return html_page(report.title,
                   fmt::format("<div class=\"grid\">\n<section><h2>Results</h2>\n{}</section>\n"
                               "<section><h2>Settings</h2>\n{}</section>\n</div>\n"
                               "<h2>Curves</h2>\n<div class=\"grid\">\n{}</div>\n",
                               html_facts(summary(report)), html_facts(report.settings), curves(report.metrics)));
}

}  // namespace nibble::train
