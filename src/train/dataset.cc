#include "train/dataset.h"

#include <algorithm>
#include <set>

#include "io/jsonl.h"
#include "text/chat_normalise.h"
#include "train/sha256.h"

namespace nibble::train {
namespace {

class Collector {
 public:
  Collector(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat_template, const DatasetOptions& options)
      : tokenizer_(tokenizer), chat_template_(chat_template), options_(options) {}

  void add(std::string_view line, const std::string& where, int64_t number) {
    DatasetReport& report = dataset_.report;
    ++report.records;
    const auto record = parse_record(line, where);
    if (!record.ok()) return reject(record.status().message());
    auto made = make_samples(*record, tokenizer_, chat_template_, options_.sample);
    if (!made.ok()) {
      const Status& status = made.status();
      return reject(fmt::format("{}: {}{}", where, status.message(),
                                status.hint().empty() ? "" : fmt::format(" (hint: {})", status.hint())));
    }
    lock_prompt(*record);
    report.too_long += made->too_long;
    report.turns_without_end += made->turns_without_end;
    if (made->samples.empty() && made->too_long == 0) ++report.without_loss;
    for (Sample& sample : made->samples) {
      sample.line = number;
      keep(std::move(sample));
    }
  }

  Dataset finish() {
    DatasetReport& report = dataset_.report;
    report.samples = static_cast<int64_t>(dataset_.samples.size());
    Sha256 hash;
    std::vector<int64_t> samples, turns;
    for (const Sample& sample : dataset_.samples) {
      hash.add(sample.key).add_values(std::span<const float>(sample.weight)).add(name(sample.objective));
      report.tokens += sample.tokens();
      report.loss_rows += sample.loss_rows();
      ++report.categories[sample.category];
      samples.push_back(sample.tokens());
      for (const TrainedTurn& turn : sample.turns) turns.push_back(static_cast<int64_t>(turn.end - turn.begin));
    }
    report.hash = hash.hex();
    report.turns = static_cast<int64_t>(turns.size());
    report.sample_tokens = lengths_of(std::move(samples));
    report.turn_tokens = lengths_of(std::move(turns));
    Sha256 lock;
    for (const std::string& prompt : system_prompts_) lock.add(prompt);
    lock.add("tools");
    for (const std::string& tools : tools_) lock.add(tools);
    report.prompt_lock = lock.add("template").add(chat_template_.source()).hex();
    return std::move(dataset_);
  }

 private:
  void reject(std::string message) {
    ++dataset_.report.bad;
    if (dataset_.report.errors.size() < options_.max_errors) dataset_.report.errors.push_back(std::move(message));
  }

  void lock_prompt(const Record& record) {
    for (const Json& message : record.messages) {
      if (message["role"] == "system" || message["role"] == "developer") {
        system_prompts_.insert(message["content"].get<std::string>());
      }
    }
    if (!record.tools.is_null()) tools_.insert(text::normalise_tools(record.tools).dump());
  }

  void keep(Sample sample) {
    if (options_.drop_duplicates && !keys_.insert(sample.key).second) {
      ++dataset_.report.duplicates;
      return;
    }
    dataset_.samples.push_back(std::move(sample));
  }

  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate& chat_template_;
  const DatasetOptions& options_;
  Dataset dataset_;
  std::set<std::string> keys_, system_prompts_, tools_;
};

}  // namespace

Lengths lengths_of(std::vector<int64_t> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto rank = [&](size_t percent) { return values[((values.size() * percent + 99) / 100) - 1]; };
  return {values.front(), rank(50), rank(95), values.back()};
}

Result<Dataset> inspect_dataset(const Path& file, const text::Tokenizer& tokenizer,
                                const text::ChatTemplate& chat_template, const DatasetOptions& options,
                                const Progress& progress) {
  Collector collector(tokenizer, chat_template, options);
  NIBBLE_RETURN_IF_ERROR(for_each_line(file, [&](const TextLine& line) -> Status {
    collector.add(line.text, fmt::format("{}:{}", file.string(), line.number), line.number);
    report(progress, line.read, line.size, file.filename().string());
    return {};
  }));
  return collector.finish();
}

Result<Dataset> load_dataset(const Path& file, const text::Tokenizer& tokenizer,
                             const text::ChatTemplate& chat_template, const DatasetOptions& options,
                             const Progress& progress) {
  NIBBLE_TRY(dataset, inspect_dataset(file, tokenizer, chat_template, options, progress));
  const DatasetReport& report = dataset.report;
  if (report.bad > 0 && !options.skip_bad) {
    std::string list;
    for (const std::string& error : report.errors) list += "\n  " + error;
    const auto shown = static_cast<int64_t>(report.errors.size());
    if (report.bad > shown) list += fmt::format("\n  … and {} more", report.bad - shown);
    return corrupt("{}: {} of {} records are bad{}", file.string(), report.bad, report.records, list)
        .with_hint("nibble data check FILE --model DIR; --skip-bad trains on the rest");
  }
  if (dataset.samples.empty()) {
    return invalid_argument("{}: expected something to train on, got {} records: {} bad, {} too long, {} without loss",
                            file.string(), report.records, report.bad, report.too_long, report.without_loss);
  }
  return std::move(dataset);
}

}  // namespace nibble::train
