#include "gate/runner.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "base/rng.h"
#include "base/sha256.h"
#include "gate/redact.h"
#include "io/jsonl.h"

namespace nibble::gate {
namespace {

constexpr int kMaxJobs = 256;

bool thinking_off(const Json& params) {
  const Json* kwargs = find_value(params, "chat_template_kwargs");
  const Json* thinking = kwargs == nullptr || !kwargs->is_object() ? nullptr : find_value(*kwargs, "enable_thinking");
  return thinking != nullptr && *thinking == false;
}

Json header_of(const Recipe& recipe, const Side& side, const RunOptions& options) {
  Json header = {{"schema", 1},
                 {"recipe", recipe.name},
                 {"recipe_version", recipe.version},
                 {"recipe_hash", recipe.hash},
                 {"cases", recipe.cases.size()},
                 {"model", side.endpoint.model},
                 {"server", side.server},
                 {"params", recipe.params},
                 {"hardening", side.play.hardening},
                 {"prompt_hash", prompt_hash(recipe, side.play)},
                 {"nibble", options.version},
                 {"seed", side.play.seed},
                 {"temperature", side.play.temperature},
                 {"repeats", options.repeats},
                 {"play_on", side.play.play_on}};
  if (options.shards > 1) header["shard"] = fmt::format("{}/{}", options.shard, options.shards);
  return header;
}

// A case to play, once.
struct Job {
  const Case* one;
  int repeat;
};

}  // namespace

std::string prompt_hash(const Recipe& recipe, const PlayOptions& play) {
  std::set<std::string> prompts;
  for (const Case& one : recipe.cases) prompts.insert(hardened(one.system, play.hardening));
  std::string text;
  for (const std::string& prompt : prompts) text += prompt;
  return sha256_of(text);
}

Result<CaseRecord> Records::get(const std::string& case_id, int repeat) const {
  const std::pair<std::string, int> key{case_id, repeat};
  CaseRecord record;
  if (const auto kept = kept_.find(key); kept != kept_.end()) {
    record = kept->second;
  } else {
    const auto found = offsets_.find(key);
    if (found == offsets_.end()) return not_found("gate: {} (repeat {}) was not played", case_id, repeat);
    NIBBLE_TRY(json, journal_->read(found->second));
    NIBBLE_TRY(read, record_from_json(json, case_id));
    record = std::move(read);
  }
  gate::suppress(suppressions_, record);
  return record;
}

// The threads of one run: each takes the next job until none is left or one has met an error.
class Run {
 public:
  Run(const Recipe& recipe, std::span<const Side> sides, const RunOptions& options, const Progress& progress)
      : recipe_(recipe), sides_(sides), options_(options), progress_(progress), records_(sides.size()) {}

  Status prepare() {
    for (size_t side = 0; side < sides_.size(); ++side) {
      const Json* owner = find_value(sides_[side].server, "owned_by");
      const bool foreign = owner == nullptr || *owner != "nibble";
      NIBBLE_TRY(detectors, Detectors::make(recipe_, thinking_off(recipe_.params), foreign));
      detectors_.push_back(std::move(detectors));
      NIBBLE_RETURN_IF_ERROR(open_log(sides_[side], records_[side]));
    }
    return {};
  }

  Status play() {
    for (int repeat = 1; repeat <= options_.repeats; ++repeat) {
      for (size_t i = static_cast<size_t>(options_.shard - 1); i < recipe_.cases.size();
           i += static_cast<size_t>(options_.shards)) {
        const Case& one = recipe_.cases[i];
        jobs_.push_back({&one, repeat});
        for (const Records& records : records_) done_ += records.offsets_.contains({one.id, repeat});
      }
    }
    total_ = jobs_.size() * sides_.size();
    Rng rng(static_cast<uint64_t>(sides_[0].play.seed));
    for (size_t i = jobs_.size(); i > 1; --i) std::swap(jobs_[i - 1], jobs_[rng.below(static_cast<uint32_t>(i))]);
    const auto wanted = static_cast<size_t>(std::clamp(options_.jobs, 1, kMaxJobs));
    std::vector<std::thread> workers;
    for (size_t i = 1; i < std::min(wanted, jobs_.size()); ++i) workers.emplace_back([this] { work(); });
    work();
    for (std::thread& worker : workers) worker.join();
    return error_;
  }

  std::vector<Records> take_records() { return std::move(records_); }

 private:
  Status open_log(const Side& side, Records& records) {
    if (side.log.empty()) return {};
    const auto known = [&](const Json& line, uint64_t offset) -> Status {
      NIBBLE_TRY(record, record_from_json(line, side.log.string()));
      if (record.error.empty()) records.offsets_[{record.id, record.repeat}] = offset;
      return {};
    };
    NIBBLE_TRY(journal, Journal::open(side.log, header_of(recipe_, side, options_),
                                      options_.resume ? Journal::Mode::resume : Journal::Mode::fresh, known));
    records.journal_.emplace(std::move(journal));
    return {};
  }

  void work() {
    std::vector<ChatEndpoint> endpoints;
    for (const Side& side : sides_) endpoints.emplace_back(side.endpoint);
    for (size_t i; !stopped_ && (i = next_++) < jobs_.size();) {
      for (size_t turn = 0; turn < sides_.size() && !stopped_; ++turn) {
        const size_t side = i % 2 == 0 ? turn : sides_.size() - 1 - turn;
        play_job(jobs_[i], side, endpoints[side]);
      }
    }
  }

  void play_job(const Job& job, size_t side, ChatEndpoint& endpoint) {
    {
      const std::lock_guard lock(mutex_);
      if (records_[side].offsets_.contains({job.one->id, job.repeat})) return;
    }
    const Side& with = sides_[side];
    const std::string lacks = lacking(*job.one, with.capabilities);
    auto record = lacks.empty() ? play_case(endpoint, *job.one, detectors_[side], with.play, job.repeat)
                                : not_played(*job.one, job.repeat, lacks);
    const std::lock_guard lock(mutex_);
    const Status kept = record.ok() ? keep(job, side, std::move(record).value()) : record.status();
    if (kept.ok()) return;
    if (error_.ok()) error_ = kept;
    stopped_ = true;
  }

  static Result<CaseRecord> not_played(const Case& one, int repeat, const std::string& lacks) {
    return CaseRecord{.key = {},
                      .id = one.id,
                      .category = one.category,
                      .repeat = repeat,
                      .gates = one.gates,
                      .turns = {},
                      .error = {},
                      .lacking = lacks};
  }

  Status keep(const Job& job, size_t side, CaseRecord record) {
    const Side& with = sides_[side];
    record.key = case_key(*job.one, with.play, job.repeat, with.endpoint.model, recipe_.hash);
    errors_in_a_row_ = record.error.empty() ? 0 : errors_in_a_row_ + 1;
    const Status unreachable =
        errors_in_a_row_ < kErrorsInARow
            ? Status()
            : unavailable("gate: expected answers, got {} errors in a row; the last: {}", kErrorsInARow, record.error)
                  .with_hint("when the server is well again, --resume goes on");
    if (options_.fail_fast && !record.passed()) stopped_ = true;
    const std::pair<std::string, int> key{record.id, record.repeat};
    Records& records = records_[side];
    if (records.journal_) {
      Json json = to_json(record);
      redact_keys(json, with.endpoint.api_key);
      if (options_.no_content) hash_texts(json);
      NIBBLE_TRY(offset, records.journal_->append(json));
      records.offsets_[key] = offset;
    } else {
      records.kept_[key] = std::move(record);
    }
    report(progress_, ++done_, total_, job.one->id);
    return unreachable;
  }

  const Recipe& recipe_;
  const std::span<const Side> sides_;
  const RunOptions& options_;
  const Progress& progress_;
  std::vector<Detectors> detectors_;  // of each side
  std::vector<Job> jobs_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;  // over everything below, and the caller's progress
  std::vector<Records> records_;
  Status error_;
  uint64_t done_ = 0, total_ = 0;
  int errors_in_a_row_ = 0;
};

Result<std::vector<Records>> play_recipe(const Recipe& recipe, std::span<const Side> sides, const RunOptions& options,
                                         const Progress& progress) {
  NIBBLE_CHECK(!sides.empty());
  Run run(recipe, sides, options, progress);
  NIBBLE_RETURN_IF_ERROR(run.prepare());
  NIBBLE_RETURN_IF_ERROR(run.play());
  return run.take_records();
}

Result<Records> play_recipe(const Recipe& recipe, const Side& side, const RunOptions& options,
                            const Progress& progress) {
  NIBBLE_TRY(records, play_recipe(recipe, std::span(&side, 1), options, progress));
  return std::move(records[0]);
}

Result<MergedLogs> merge_logs(const Recipe& recipe, std::span<const Path> logs, const Path& output) {
  MergedLogs merged;
  std::map<std::pair<std::string, int>, Json> lines;
  for (const Path& log : logs) {
    NIBBLE_RETURN_IF_ERROR(for_each_json_line(log, [&](Json& line, int64_t number) -> Status {
      if (number == 1) {
        line.erase("shard");
        if (&log == &logs.front()) merged.header = line;
        if (line == merged.header) return {};
        return invalid_argument("{}: expected a shard of the same run as {}, got another", log.string(),
                                logs.front().string());
      }
      NIBBLE_TRY(record, record_from_json(line, fmt::format("{}:{}", log.string(), number)));
      if (!record.error.empty()) return {};  // as if it had not been played
      if (!lines.try_emplace({record.id, record.repeat}, std::move(line)).second) {
        return invalid_argument("{}: {} was played twice", log.string(), record.id);
      }
      return {};
    }));
  }
  const Json* hash = find_value(merged.header, "recipe_hash");
  const Json* cases = find_value(merged.header, "cases");
  if (hash == nullptr || *hash != recipe.hash || cases == nullptr || *cases != recipe.cases.size()) {
    return invalid_argument("{}: expected a run of the recipe {} with {} cases, got another", logs.front().string(),
                            recipe.name, recipe.cases.size())
        .with_hint("give --merge the same --recipe, --cases and --only as the shards");
  }
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::absolute(output).parent_path(), error);
  if (error) return io("{}: {}", output.string(), error.message());
  NIBBLE_TRY(journal, Journal::open(output, merged.header, Journal::Mode::fresh));
  for (const auto& [key, line] : lines) {
    NIBBLE_TRY(offset, journal.append(line));
    merged.records.offsets_[key] = offset;
  }
  merged.records.journal_.emplace(std::move(journal));
  return merged;
}

Result<Report> report_of(const Recipe& recipe, const Records& records, const ReportOptions& options) {
  ReportBuilder builder(recipe, options);
  for (const Case& one : recipe.cases) {
    for (int repeat = 1; repeat <= options.repeats; ++repeat) {
      auto record = records.get(one.id, repeat);
      if (!record.ok() && record.status().code() != Code::not_found) return record.status();
      if (record.ok()) {
        builder.add(one, *record);
      } else {
        builder.add_missing(one);
      }
    }
  }
  return builder.finish();
}

}  // namespace nibble::gate
