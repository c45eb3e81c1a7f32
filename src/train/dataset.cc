#include "train/dataset.h"

#include <algorithm>
#include <set>

#include "base/sha256.h"
#include "io/jsonl.h"
#include "text/chat_normalise.h"

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
    note_prompt(*record);
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
    report.lock = lock();
    Sha256 prompts;
    for (const std::string& prompt : system_prompts_) prompts.add(prompt);
    prompts.add("tools");
    for (const std::string& tools : tools_) prompts.add(tools);
    report.prompt_lock = prompts.add("template").add(report.lock.template_hash).hex();
    return std::move(dataset_);
  }

 private:
  void reject(std::string message) {
    ++dataset_.report.bad;
    if (dataset_.report.errors.size() < options_.max_errors) dataset_.report.errors.push_back(std::move(message));
  }

  void note_prompt(const Record& record) {
    const auto messages = text::normalise_messages(record.messages, chat_template_);
    if (messages.ok()) system_prompts_.insert(sha256_of(text::system_prompt_of(*messages)));
    tools_.insert(sha256_of(text::tools_text_of(text::normalise_tools(record.tools))));
  }

  text::PromptLock lock() const {
    const SampleOptions& o = options_.sample;
    text::PromptLock lock;
    lock.template_hash = sha256_of(chat_template_.source());
    lock.system_prompts = system_prompts_;
    lock.tools = tools_;
    if (o.thinking != Thinking::automatic) lock.thinking = o.thinking == Thinking::on;
    lock.think_prefix_is_target = o.think_prefix == ThinkPrefix::target;
    return lock;
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
  std::set<std::string> keys_, system_prompts_, tools_;  // the last two: hashes
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
