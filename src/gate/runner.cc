#include "gate/runner.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/rng.h"
#include "gate/redact.h"

namespace nibble::gate {
namespace {

constexpr int kMaxJobs = 256;

bool thinking_off(const Json& params) {
  const Json* kwargs = find_value(params, "chat_template_kwargs");
  const Json* thinking = kwargs == nullptr || !kwargs->is_object() ? nullptr : find_value(*kwargs, "enable_thinking");
  return thinking != nullptr && *thinking == false;
}

Json header_of(const Recipe& recipe, const Side& side, int repeats) {
  return {{"schema", 1},
          {"recipe", recipe.name},
          {"recipe_version", recipe.version},
          {"recipe_hash", recipe.hash},
          {"cases", recipe.cases.size()},
          {"model", side.endpoint.model},
          {"server", side.server},
          {"params", recipe.params},
          {"hardening", side.play.hardening},
          {"seed", side.play.seed},
          {"temperature", side.play.temperature},
          {"repeats", repeats},
          {"play_on", side.play.play_on}};
}

// A case to play, once.
struct Job {
  const Case* one;
  int repeat;
};

}  // namespace

Result<CaseRecord> Records::get(const std::string& case_id, int repeat) const {
  const std::pair<std::string, int> key{case_id, repeat};
  if (const auto kept = kept_.find(key); kept != kept_.end()) return kept->second;
  const auto found = offsets_.find(key);
  if (found == offsets_.end()) return not_found("gate: {} (repeat {}) was not played", case_id, repeat);
  NIBBLE_TRY(json, journal_->read(found->second));
  return record_from_json(json, case_id);
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
      for (const Case& one : recipe_.cases) {
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
    NIBBLE_TRY(journal, Journal::open(side.log, header_of(recipe_, side, options_.repeats),
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
    auto record = play_case(endpoint, *job.one, detectors_[side], sides_[side].play, job.repeat);
    const std::lock_guard lock(mutex_);
    const Status kept = record.ok() ? keep(job, side, std::move(record).value()) : record.status();
    if (kept.ok()) return;
    if (error_.ok()) error_ = kept;
    stopped_ = true;
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
