#include "train/trainer.h"

#include <cmath>

#include "base/clock.h"
#include "ops/optim/squared_norm.h"
#include "train/run_state.h"

namespace nibble::train {
namespace {

constexpr int kBadStepsInARow = 3;

class Loop {
 public:
  Loop(Context& cx, Student& student, Teacher* teacher, const std::vector<Sample>& valid, const TrainerOptions& options,
       const Exporter& exporter, const Path& output, const Observer& observer, Batches batches)
      : cx_(cx),
        student_(student),
        valid_(valid),
        options_(options),
        exporter_(exporter),
        output_(output),
        observer_(observer),
        batches_(std::move(batches)),
        pass_(student, teacher, options.loss) {}

  Result<TrainSummary> run(int64_t steps) {
    steps_ = steps;
    schedule_ = options_.schedule;
    schedule_.steps = steps;
    NIBBLE_RETURN_IF_ERROR(begin());
    const Stopwatch watch;
    while (state_.step < steps_ && !cx_.cancel.cancelled()) {
      const int64_t epoch = epoch_of_next();
      const Cursor before = state_.cursor;
      const Status stepped = step();
      if (stepped.code() == Code::cancelled) {  // the weights have not moved yet
        state_.cursor = before;
        break;
      }
      NIBBLE_RETURN_IF_ERROR(stepped);
      const bool last = state_.step == steps_;
      const bool epoch_ends = epoch_of_next() != epoch;
      const bool eval = last || (options_.eval_every > 0 ? state_.step % options_.eval_every == 0 : epoch_ends);
      if (eval && !cx_.cancel.cancelled()) {
        const Status evaluated = evaluate_now();
        if (evaluated.code() != Code::cancelled) NIBBLE_RETURN_IF_ERROR(evaluated);
      }
      const bool save = last || (options_.save_every > 0 ? state_.step % options_.save_every == 0 : eval);
      if (save) NIBBLE_RETURN_IF_ERROR(save_now());
    }
    if (cx_.cancel.cancelled() && state_.step < steps_) {
      NIBBLE_RETURN_IF_ERROR(save_now());
      summary_.interrupted = true;
    }
    summary_.steps = state_.step;
    summary_.best_step = state_.best_step;
    summary_.best_loss = state_.best_loss;
    summary_.seconds = watch.seconds();
    return summary_;
  }

 private:
  Status begin() {
    std::error_code error;
    std::filesystem::create_directories(output_, error);
    if (error) return io("{}: expected a folder that can be made: {}", output_.string(), error.message());
    state_.settings = options_.settings;
    NIBBLE_TRY(newest, newest_state(output_));
    if (newest && !options_.resume) {
      return invalid_argument("output: expected a new folder, got one that holds a run ({})", output_.string())
          .with_hint("continue it with --resume, or choose another --output");
    }
    if (!newest) return evaluate_now();  // where the run starts from
    NIBBLE_TRY(state, load_state(*newest, options_.settings, student_));
    state_ = state;
    student_.refresh(cx_);
    student_.count_flips(cx_);
    return observer_.resumed ? observer_.resumed(state_.step) : Status();
  }

  int64_t epoch_of_next() {
    return state_.cursor.index >= batches_.count(state_.cursor.epoch) ? state_.cursor.epoch + 1 : state_.cursor.epoch;
  }

  Status step() {
    const Stopwatch watch;
    micro_.clear();
    Totals totals;
    const int64_t epoch = epoch_of_next();
    do {
      micro_.push_back(batches_.next(state_.cursor));
      totals.add(micro_.back());
    } while (static_cast<int64_t>(micro_.size()) < options_.accumulate && epoch_of_next() == epoch);

    StepResult record;
    student_.clear_gradients();
    for (const Batch& batch : micro_) {
      NIBBLE_TRY(losses, pass_.gradients(cx_, batch, totals));
      record.losses.add(losses);
    }
    record.gradient_norm = student_.gradient_norm(cx_);
    record.lr = schedule_.at(state_.step);
    record.skipped = !std::isfinite(record.losses.loss) || !std::isfinite(record.gradient_norm);
    if (record.skipped) {
      NIBBLE_RETURN_IF_ERROR(count_bad_step());
    } else {
      bad_steps_ = 0;
      ops::AdamW adamw = options_.adamw;
      adamw.lr = static_cast<float>(record.lr);
      adamw.step = state_.step + 1;
      if (options_.clip > 0) adamw.clip = ops::clip_factor(record.gradient_norm, options_.clip);
      record.clip = adamw.clip;
      student_.update(cx_, adamw);
    }
    ++state_.step;
    record.step = state_.step;
    record.steps = steps_;
    record.epoch = static_cast<double>(state_.cursor.epoch) +
                   static_cast<double>(state_.cursor.index) / static_cast<double>(batches_.count(state_.cursor.epoch));
    if (options_.flips_every > 0 && state_.step % options_.flips_every == 0) record.flips = flips();
    record.seconds = watch.seconds();
    summary_.tokens += record.losses.tokens;
    summary_.rows += record.losses.rows();
    return observer_.step ? observer_.step(record) : Status();
  }

  Status count_bad_step() {
    if (++bad_steps_ < kBadStepsInARow) return {};
    std::string lines;
    for (const Batch& batch : micro_) {
      for (const Sample* sample : batch.samples) lines += fmt::format("{}{}", lines.empty() ? "" : ",", sample->line);
    }
    const std::string tensor = student_.first_not_finite(cx_);
    return invalid_argument("step {}: expected a finite loss and gradient, got NaN or infinity {} times in a row ({})",
                            state_.step + 1, kBadStepsInARow, tensor.empty() ? "loss" : tensor)
        .with_hint(fmt::format("lower --lr; the last batch held lines {} of the data", lines));
  }

  std::optional<Flips> flips() {
    return student_.quantized().empty() ? std::nullopt : std::optional<Flips>(student_.count_flips(cx_));
  }

  Status evaluate_now() {
    EvalResult record;
    record.step = state_.step;
    record.flips = flips();
    if (!valid_.empty()) {
      NIBBLE_TRY(losses, evaluate(cx_, pass_, valid_, options_.batch));
      record.losses = losses;
      const double loss = losses.loss;
      record.best = state_.step > 0 && (state_.best_step < 0 || loss < state_.best_loss);
      if (record.best) {
        state_.best_step = state_.step;
        state_.best_loss = loss;
        NIBBLE_RETURN_IF_ERROR(exporter_.write(student_, output_ / "best"));
      }
    }
    return observer_.eval ? observer_.eval(record) : Status();
  }

  Status save_now() {
    NIBBLE_RETURN_IF_ERROR(save_state(output_, state_, student_));
    NIBBLE_RETURN_IF_ERROR(prune_states(output_, options_.keep));
    if (student_.options().lora.rank > 0)
      NIBBLE_RETURN_IF_ERROR(exporter_.write_adapter(student_, output_ / "adapter"));
    return exporter_.write(student_, output_ / "last");
  }

  Context& cx_;
  Student& student_;
  const std::vector<Sample>& valid_;
  const TrainerOptions& options_;
  const Exporter& exporter_;
  const Path& output_;
  const Observer& observer_;
  Batches batches_;
  LossPass pass_;
  Schedule schedule_;
  RunState state_;
  TrainSummary summary_;
  std::vector<Batch> micro_;
  int64_t steps_ = 0;
  int bad_steps_ = 0;
};

}  // namespace

int64_t count_steps(const std::vector<Sample>& samples, const TrainerOptions& options) {
  if (options.schedule.steps > 0) return options.schedule.steps;
  Result<Batches> batches = Batches::create(samples, options.batch);
  int64_t steps = 0;
  for (int64_t epoch = 0; batches.ok() && epoch < options.epochs; ++epoch) {
    steps += (batches->count(epoch) + options.accumulate - 1) / options.accumulate;
  }
  return steps;
}

Result<Losses> evaluate(Context& cx, LossPass& pass, const std::vector<Sample>& samples, const BatchOptions& options) {
  std::vector<Batch> batches;
  std::vector<const Sample*> group;
  int64_t tokens = 0;
  const auto flush = [&] {
    if (!group.empty()) batches.push_back(make_batch(group, options.objective));
    group.clear();
    tokens = 0;
  };
  for (const Sample& sample : samples) {
    const bool full = options.conversations > 0 && static_cast<int64_t>(group.size()) >= options.conversations;
    if (full || (options.max_tokens > 0 && tokens + sample.tokens() > options.max_tokens)) flush();
    group.push_back(&sample);
    tokens += sample.tokens();
  }
  flush();
  Totals totals;
  for (const Batch& batch : batches) totals.add(batch);
  Losses sum;
  for (const Batch& batch : batches) {
    NIBBLE_TRY(losses, pass.evaluate(cx, batch, totals));
    sum.add(losses);
  }
  return sum;
}

Result<TrainSummary> train(Context& cx, Student& student, Teacher* teacher, const std::vector<Sample>& samples,
                           const std::vector<Sample>& valid, const TrainerOptions& options, const Exporter& exporter,
                           const Path& output, const Observer& observer) {
  NIBBLE_TRY(batches, Batches::create(samples, options.batch));
  Loop loop(cx, student, teacher, valid, options, exporter, output, observer, std::move(batches));
  return loop.run(count_steps(samples, options));
}

}  // namespace nibble::train
