#include "synth/generate.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "synth/demand.h"
#include "text/utf8.h"

namespace nibble::synth {
namespace {

void sanitize(gate::Reply& reply) {
  reply.content = text::sanitize_utf8(reply.content);
  reply.reasoning = text::sanitize_utf8(reply.reasoning);
  for (gate::ToolCall& call : reply.calls) {
    call.name = text::sanitize_utf8(call.name);
    call.arguments = text::sanitize_utf8(call.arguments);
  }
}

struct State {
  const Category* category;
  Demand demand;
  int64_t next_cell = 0;
  int64_t rounds = 0;
  int dry_rounds = 0;  // in which the teacher was asked: those of the journal alone do not count
};

class Run {
 public:
  Run(const GenerateInput& input, const GenerateOptions& options)
      : input_(input),
        asker_(options.ask, input.recipe.prices),
        jobs_(std::max(options.ask.jobs, 1)),
        context_{&input.recipe, &input.validator, options.seed} {
    input_.answers.for_each([&](const AnswerKey&, const Recorded& recorded) {
      if (!recorded.lost) asker_.count(recorded.answer);
    });
  }

  Asker& asker() { return asker_; }

  /// The results of the work, each in its place; nothing where asking was over before.
  Result<std::vector<std::optional<CellResult>>> work(const std::vector<CellWork>& cells,
                                                      const std::function<void(const CellResult&)>& each) {
    std::vector<std::optional<CellResult>> results(cells.size());
    std::atomic<size_t> next{0};
    std::mutex mutex;
    Status failed;
    const auto worker = [&](size_t number) {
      for (size_t i; (i = next++) < cells.size();) {
        auto result = work_cell(cells[i], number);
        const std::lock_guard lock(mutex);
        if (!result.ok()) {
          if (result.status().code() != Code::cancelled && failed.ok()) failed = result.status();
          next = cells.size();
          continue;
        }
        results[i] = std::move(*result);
        if (each) each(*results[i]);
      }
    };
    const size_t count = std::min(cells.size(), static_cast<size_t>(jobs_));
    while (teachers_.size() < count) teachers_.push_back(input_.make_teacher());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < count; ++i) threads.emplace_back(worker, i);
    for (std::thread& thread : threads) thread.join();
    if (!failed.ok()) return failed;
    return results;
  }

  /// Whether the teacher was asked since the last call.
  bool asked() { return asked_.exchange(false); }

 private:
  Result<CellResult> work_cell(const CellWork& work, size_t number) {
    const Ask ask = [&](int64_t attempt, int64_t step, const Question& question) -> Result<Answer> {
      const AnswerKey key{work.category->id, work.cell, attempt, step};
      Recorded recorded;
      recorded.prompt = prompt_hash(question);
      if (auto found = input_.answers.find(key, recorded.prompt)) {
        if (found->lost) return unavailable("{}", *found->lost);
        return std::move(found->answer);
      }
      asked_ = true;
      auto answer = asker_.ask(*teachers_[number], question);
      if (!answer.ok()) {
        if (answer.status().code() != Code::unavailable) return answer.status();
        recorded.lost = answer.status().message();
        NIBBLE_RETURN_IF_ERROR(input_.answers.add(key, recorded));
        return answer.status();
      }
      sanitize(answer->reply);
      recorded.answer = *answer;
      NIBBLE_RETURN_IF_ERROR(input_.answers.add(key, recorded));
      return std::move(*answer);
    };
    return input_.recipe.kind == Kind::write ? write_cell(context_, work, ask) : roll_cell(context_, work, ask);
  }

  const GenerateInput& input_;
  Asker asker_;
  int jobs_;
  CellContext context_;
  std::vector<std::unique_ptr<Teacher>> teachers_;
  std::atomic<bool> asked_{false};
};

// The cells of the next round, in the order in which they will be taken.
std::vector<CellWork> next_round(const Recipe& recipe, std::vector<State>& states, int most_dry_rounds) {
  std::vector<CellWork> cells;
  for (State& state : states) {
    if (state.dry_rounds >= most_dry_rounds) continue;
    const int64_t rows = state.demand.next();
    if (rows == 0) continue;
    ++state.rounds;
    for (const int64_t count : batches_of(rows, recipe.kind == Kind::write ? recipe.batch : 1)) {
      cells.push_back({state.category, state.next_cell++, count});
    }
  }
  return cells;
}

}  // namespace

Result<GenerateReport> generate(const GenerateInput& input, const GenerateOptions& options, Collection& collection,
                                const std::function<void(const GenerateReport&, int64_t)>& progress) {
  Run run(input, options);
  std::vector<State> states;
  GenerateReport report;
  for (const Category& category : input.recipe.categories) {
    states.push_back({&category, Demand(category.quota)});
    report.categories.push_back({&category, {}});
  }
  while (run.asker().stopped() == Stop::none) {
    const std::vector<CellWork> cells = next_round(input.recipe, states, options.dry_rounds);
    if (cells.empty()) break;
    int64_t usable = static_cast<int64_t>(collection.accepted().size());
    NIBBLE_TRY(results, run.work(cells, [&](const CellResult& result) {
      for (const Candidate& one : result.candidates) usable += one.faults.empty() ? 1 : 0;
      report.spent = run.asker().spent();
      if (progress) progress(report, std::min(usable, input.recipe.quota()));
    }));
    const bool asked = run.asked();
    std::map<const Category*, std::pair<int64_t, int64_t>> brought;  // asked for, usable
    for (size_t i = 0; i < cells.size(); ++i) {
      if (!results[i]) continue;
      auto& [rows, good] = brought[cells[i].category];
      rows += cells[i].count;
      good += collection.take(cells[i], std::move(*results[i]));
    }
    for (State& state : states) {
      const auto found = brought.find(state.category);
      if (found == brought.end()) continue;
      const auto [rows, good] = found->second;
      state.demand.add_round(rows, good);
      state.dry_rounds = good > 0 ? 0 : state.dry_rounds + (asked ? 1 : 0);
    }
  }
  for (size_t i = 0; i < states.size(); ++i) {
    const auto count = collection.counts().find(states[i].category->id);
    if (count != collection.counts().end()) report.categories[i].count = count->second;
    report.categories[i].asked = states[i].demand.asked();
    report.categories[i].rounds = states[i].rounds;
  }
  report.stop = run.asker().stopped();
  report.stop_status = run.asker().stop_status();
  report.spent = run.asker().spent();
  report.answers = static_cast<int64_t>(input.answers.size());
  NIBBLE_TRY(set, check_set(input.recipe, input.validator, input.hold_out, collection));
  report.set = std::move(set);
  return report;
}

Result<std::vector<Accepted>> preview(const GenerateInput& input, const GenerateOptions& options, int64_t count) {
  Run run(input, options);
  std::vector<CellWork> cells;
  const auto& categories = input.recipe.categories;
  const auto most = static_cast<int64_t>(categories.size());
  for (int64_t i = 0; i < std::min(count, most); ++i) {
    const int64_t rows = count / most + (i < count % most ? 1 : 0);
    if (input.recipe.kind == Kind::write) {
      cells.push_back({&categories[static_cast<size_t>(i)], 0, rows});
    } else {
      for (int64_t cell = 0; cell < rows; ++cell) cells.push_back({&categories[static_cast<size_t>(i)], cell, 1});
    }
  }
  NIBBLE_TRY(results, run.work(cells, {}));
  if (run.asker().stopped() != Stop::none) return run.asker().stop_status();
  std::vector<Accepted> rows;
  for (size_t i = 0; i < cells.size(); ++i) {
    for (Candidate& one : results[i]->candidates) rows.push_back({cells[i].category, cells[i].cell, std::move(one)});
  }
  return rows;
}

}  // namespace nibble::synth
