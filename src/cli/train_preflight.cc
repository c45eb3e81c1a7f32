#include "cli/train_preflight.h"

#include <algorithm>

#include "base/thread_pool.h"
#include "cli/data_report.h"
#include "cli/terminal.h"
#include "cli/train_plan.h"

namespace nibble::cli {
namespace {

// Without data: full micro-batches of the longest samples that the flags let through.
train::BatchExtent assumed_batch(const TrainFlags& flags) {
  const train::BatchOptions& batch = flags.trainer.batch;
  const int64_t length = flags.data.options.sample.max_length > 0 ? flags.data.options.sample.max_length : 2048;
  int64_t sequences = std::max<int64_t>(1, batch.conversations);
  if (batch.max_tokens > 0) sequences = std::clamp<int64_t>(batch.max_tokens / length, 1, sequences);
  return {sequences * length, length, sequences};
}

struct Checked {
  train::Dataset data, valid;
  Json reports = Json::object();
  bool sound = true;
};

// Without a verdict on bad lines: that is the caller's.
Result<Checked> check_data(const TrainFlags& flags) {
  NIBBLE_TRY(options, dataset_options(flags.data));
  NIBBLE_TRY(tokenizer, text::Tokenizer::load(flags.dir));
  NIBBLE_TRY(chat_template, text::ChatTemplate::load(flags.dir));
  Checked checked;
  const auto read = [&](const char* what, const Path& file, int64_t limit, train::Dataset& to) -> Status {
    if (file.empty()) return {};
    {
      ProgressBar bar("check " + file.filename().string(), true);
      NIBBLE_TRY(dataset, train::inspect_dataset(file, tokenizer, chat_template, options, bar.callback()));
      to = std::move(dataset);
    }
    checked.sound &= !to.samples.empty() && (to.report.bad == 0 || options.skip_bad);
    checked.reports[what] = report_json(to.report);
    HoldOutReport held_out;
    if (flags.check) {
      NIBBLE_TRY(looked, look_for_held_out(file, flags.hold_out, options.max_errors));
      held_out = std::move(looked);
      checked.reports[what]["holdout"] = hold_out_json(held_out);
      checked.sound &= held_out.errors() == 0;
    }
    if (flags.check && !flags.json) {
      constexpr int kSamples = 3;
      fmt::print("--{} {}\n\n", what, file.string());
      print_report(to, tokenizer, kSamples);
      print_hold_out(held_out);
      fmt::print("\n");
    }
    if (limit > 0 && to.samples.size() > static_cast<size_t>(limit)) to.samples.resize(static_cast<size_t>(limit));
    return {};
  };
  NIBBLE_RETURN_IF_ERROR(read("data", flags.train, flags.limit, checked.data));
  NIBBLE_RETURN_IF_ERROR(read("valid", flags.valid, flags.valid_limit, checked.valid));
  return checked;
}

}  // namespace

train::BatchExtent largest_batch(const TrainFlags& flags, const train::Dataset& data, const train::Dataset& valid) {
  const train::BatchExtent a = train::largest_batch(data.samples, flags.trainer.batch),
                           b = train::largest_batch(valid.samples, flags.trainer.batch);
  return {std::max(a.tokens, b.tokens), std::max(a.longest, b.longest), std::max(a.sequences, b.sequences)};
}

Result<int> preflight(const TrainFlags& flags) {
  NIBBLE_TRY(model, planned_model(flags.dir));
  Checked checked;
  if (!flags.train.empty()) {
    NIBBLE_TRY(read, check_data(flags));
    checked = std::move(read);
  }
  const train::BatchExtent batch =
      checked.data.samples.empty() ? assumed_batch(flags) : largest_batch(flags, checked.data, checked.valid);
  const ThreadPool pool(flags.threads);
  NIBBLE_TRY(plan, make_plan(flags, model, batch, pool.threads()));
  if (flags.json) {
    Json json = flags.check ? std::move(checked.reports) : Json::object();
    json["plan"] = plan.json();
    print_json(json);
  } else {
    fmt::print("{}", plan.text());
  }
  NIBBLE_RETURN_IF_ERROR(plan.verdict);
  return checked.sound ? 0 : 2;
}

}  // namespace nibble::cli
