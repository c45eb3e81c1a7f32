#include "cli/data_report.h"

#include <unistd.h>

#include "cli/terminal.h"

namespace nibble::cli {
namespace {

// Runs of ids that are trained and runs that are not.
std::string marked(const train::Sample& sample, const text::Tokenizer& tokenizer, bool colour) {
  const char* const open = colour ? "\033[32m" : "[[";
  const char* const close = colour ? "\033[0m" : "]]";
  std::string text;
  for (size_t begin = 0; begin < sample.ids.size();) {
    const auto trained = [&](size_t i) { return i > 0 && sample.weight[i - 1] > 0; };
    size_t end = begin + 1;
    while (end < sample.ids.size() && trained(end) == trained(begin)) ++end;
    const std::string run = printable(tokenizer.decode(std::span(sample.ids).subspan(begin, end - begin)));
    text += trained(begin) ? open + run + close : run;
    begin = end;
  }
  return text;
}

Json lengths_json(const train::Lengths& l) {
  return {{"min", l.min}, {"median", l.median}, {"p95", l.p95}, {"max", l.max}};
}

}  // namespace

Json report_json(const train::DatasetReport& r) {
  return {{"records", r.records},
          {"bad", r.bad},
          {"errors", r.errors},
          {"without_loss", r.without_loss},
          {"samples", r.samples},
          {"too_long", r.too_long},
          {"duplicates", r.duplicates},
          {"turns", r.turns},
          {"turns_without_end", r.turns_without_end},
          {"tokens", r.tokens},
          {"loss_tokens", r.loss_rows},
          {"loss_share", r.loss_share()},
          {"sample_tokens", lengths_json(r.sample_tokens)},
          {"turn_tokens", lengths_json(r.turn_tokens)},
          {"categories", r.categories},
          {"hash", r.hash},
          {"prompt_lock", r.prompt_lock}};
}

void print_report(const train::Dataset& dataset, const text::Tokenizer& tokenizer, int show) {
  const train::DatasetReport& r = dataset.report;
  for (const std::string& error : r.errors) fmt::print("{}\n", printable(error));
  if (r.bad > static_cast<int64_t>(r.errors.size())) {
    fmt::print("… and {} more\n", r.bad - static_cast<int64_t>(r.errors.size()));
  }
  if (r.bad > 0) fmt::print("\n");
  const bool colour = ::isatty(STDOUT_FILENO) != 0;
  for (size_t i = 0; i < dataset.samples.size() && i < static_cast<size_t>(show); ++i) {
    const train::Sample& sample = dataset.samples[i];
    fmt::print("line {}, {} tokens, {} of them trained ({}):\n{}\n", sample.line, sample.tokens(), sample.loss_rows(),
               colour ? "green" : "in [[brackets]]", marked(sample, tokenizer, colour));
  }
  const auto lengths = [](const train::Lengths& l) {
    return fmt::format("{} / {} / {} / {}", l.min, l.median, l.p95, l.max);
  };
  fmt::print(
      "{}",
      table({{"records", fmt::format("{}, {} bad, {} without anything to train", r.records, r.bad, r.without_loss)},
             {"samples",
              fmt::format("{}; dropped: {} too long, {} exact duplicates", r.samples, r.too_long, r.duplicates)},
             {"tokens", fmt::format("{}, {} trained ({:.1f} %)", r.tokens, r.loss_rows, 100 * r.loss_share())},
             {"sample length", lengths(r.sample_tokens) + "   min / median / p95 / max tokens"},
             {"trained turns", std::to_string(r.turns)},
             {"turn length", lengths(r.turn_tokens) + "   min / median / p95 / max tokens"},
             {"dataset", r.hash},
             {"prompt lock", r.prompt_lock}}));
  if (r.turns_without_end > 0) {
    fmt::print("\nwarning: {} trained turns end before <|im_end|>: the model does not learn to stop\n",
               r.turns_without_end);
  }
}

Json stats_json(const synth::DataStats& s) {
  Json turns = Json::object();
  for (const auto& [count, records] : s.turns) turns[std::to_string(count)] = records;
  return {{"records", s.records},
          {"bad", s.bad},
          {"groups", s.groups},
          {"system_prompts", s.system_prompts},
          {"toolsets", s.toolsets},
          {"user_turns", s.user_turns},
          {"replies", s.replies},
          {"calls", s.calls},
          {"with_calls", s.with_calls},
          {"with_empty_result", s.with_empty},
          {"with_failed_result", s.with_failed},
          {"with_thinking", s.with_thinking},
          {"with_markdown", s.with_markdown},
          {"duplicates", s.duplicates},
          {"near_duplicates", s.near_duplicates},
          {"tokens",
           {{"sum", s.tokens},
            {"min", s.tokens_min},
            {"median", s.tokens_median},
            {"p95", s.tokens_p95},
            {"max", s.tokens_max},
            {"estimated", s.tokens_estimated}}},
          {"categories", s.categories},
          {"tools", s.tools},
          {"turns", turns}};
}

void print_stats(const synth::DataStats& s) {
  const int64_t sound = s.records - s.bad;
  const auto share = [&](int64_t records) {
    return fmt::format("{} ({:.1f} %)", records,
                       sound == 0 ? 0 : 100.0 * static_cast<double>(records) / static_cast<double>(sound));
  };
  const auto list = [](const auto& counts) {
    std::string text;
    for (const auto& [name, count] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, count);
    return printable(text);
  };
  fmt::print("{}", table({{"records", fmt::format("{}, {} bad, in {} groups", s.records, s.bad, s.groups)},
                          {"prompts", fmt::format("{} system prompts, {} sets of tools", s.system_prompts, s.toolsets)},
                          {"messages", fmt::format("{} of users, {} of the assistant with {} calls", s.user_turns,
                                                   s.replies, s.calls)},
                          {"with a call", share(s.with_calls)},
                          {"empty, failed result", share(s.with_empty) + ", " + share(s.with_failed)},
                          {"thinking, markdown", share(s.with_thinking) + ", " + share(s.with_markdown)},
                          {"repetitions", fmt::format("{} exact, {} near", s.duplicates, s.near_duplicates)},
                          {"length", fmt::format("{} / {} / {} / {}   min / median / p95 / max tokens{}", s.tokens_min,
                                                 s.tokens_median, s.tokens_p95, s.tokens_max,
                                                 s.tokens_estimated ? ", estimated" : "")},
                          {"tokens", std::to_string(s.tokens)},
                          {"turns: records", list(s.turns)},
                          {"calls", list(s.tools)},
                          {"categories", list(s.categories)}}));
}

}  // namespace nibble::cli
