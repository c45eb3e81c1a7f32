#include "base/machine.h"
#include "base/sha256.h"
#include "cli/command.h"
#include "cli/open_teacher.h"
#include "cli/terminal.h"
#include "cli/train_flags.h"
#include "cli/train_plan.h"
#include "cli/train_preflight.h"
#include "cli/train_recipes.h"
#include "cli/train_recorder.h"

namespace nibble::cli {
namespace {

Result<train::Dataset> load_data(const TrainFlags& flags, const Path& file, const text::Tokenizer& tokenizer,
                                 const text::ChatTemplate& chat_template, int64_t limit) {
  NIBBLE_TRY(options, dataset_options(flags.data));
  ProgressBar bar("read " + file.filename().string(), true);
  NIBBLE_TRY(data, train::load_dataset(file, tokenizer, chat_template, options, bar.callback()));
  if (limit > 0 && data.samples.size() > static_cast<size_t>(limit)) data.samples.resize(static_cast<size_t>(limit));
  return std::move(data);
}

Result<int> run(TrainFlags flags) {
  NIBBLE_RETURN_IF_ERROR(complete(flags));
  if (flags.plan || flags.check) return preflight(flags);
  NIBBLE_TRY(open, open_model(flags.dir, flags.adapter));
  NIBBLE_TRY(data, load_data(flags, flags.train, *open.tokenizer, *open.chat_template, flags.limit));
  train::Dataset valid;
  if (!flags.valid.empty()) {
    NIBBLE_TRY(loaded, load_data(flags, flags.valid, *open.tokenizer, *open.chat_template, flags.valid_limit));
    valid = std::move(loaded);
  }
  Json settings = settings_of(flags, open.model->fingerprint, data);
  flags.trainer.settings = Sha256().add(settings.dump()).hex();
  settings["recipe"] = flags.recipe;
  settings["max_length"] = flags.data.options.sample.max_length;
  settings["machine"] = machine_name();

  ThreadPool pool(flags.threads);
  const model::Weights& weights = open.model->weights;
  NIBBLE_TRY(plan, make_plan(flags, {weights.config, weights.tied, weights.embed.dtype()},
                             largest_batch(flags, data, valid), pool.threads()));
  if (!flags.json) fmt::print(stderr, "{}", plan.text());
  NIBBLE_RETURN_IF_ERROR(plan.verdict);
  flags.trainer.loss.keep_traces = plan.keep_traces;
  Context cx(pool, Numeric::exact);
  cx.cancel = interrupt_token();
  if (!flags.calib.empty()) {
    NIBBLE_TRY(amax, calibrated_amax(cx, open, flags.calib, flags.samples));
    flags.student.input_amax = std::move(amax);
  }
  OpenTeacher teacher;
  if (flags.kl > 0) {
    NIBBLE_TRY(opened, open_teacher(cx, {flags.teacher, flags.sidecar, flags.dir, flags.data, data, valid,
                                         flags.trainer.batch.objective, open.model->weights.config.vocab}));
    teacher = std::move(opened);
  }
  NIBBLE_TRY(student, train::Student::create(cx, flags.dir, std::move(*open.model), flags.student));

  NIBBLE_RETURN_IF_ERROR(cx.arena.reserve(plan.memory.work_bytes));

  TrainRecorder recorder(flags, settings);
  Json manifest = settings;
  manifest["prompt"] = text::to_json(data.report.lock);
  const train::Exporter exporter({flags.dir, manifest.dump(2) + "\n"}, pool);
  NIBBLE_TRY(summary, train::train(cx, *student, teacher.teacher.get(), data.samples, valid.samples, flags.trainer,
                                   exporter, flags.output, recorder.observer()));
  const train::ReportRows results = results_of(flags, summary, recorder);
  NIBBLE_RETURN_IF_ERROR(write_report(flags, settings, results));
  if (flags.json) {
    Json json = summary_json(flags, summary, recorder);
    json["plan"] = plan.json();
    print_json(json);
  } else {
    std::vector<std::vector<std::string>> rows = {{"result", fmt::format("{} steps", summary.steps)}};
    for (const auto& [name, value] : results) rows.push_back({name, value});
    rows.push_back({"report", (flags.output / "report.html").string()});
    fmt::print("{}", table(rows));
    if (summary.interrupted) fmt::print("stopped before the end: go on with the same command and --resume\n");
  }
  return 0;
}

}  // namespace

void add_train(CLI::App& app, Action& action) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = app.add_subcommand("train", "heal or fine-tune: SFT, QAT, QAD, from chat JSONL to a checkpoint");
  add_train_flags(*command, *flags);
  command->callback([flags, command, &action] {
    action = [flags, command]() -> Result<int> {
      if (flags->recipe == "list") {
        fmt::print("{}", recipe_list());
        return 0;
      }
      NIBBLE_RETURN_IF_ERROR(use_recipe(*command, *flags));
      return run(*flags);
    };
  });
}

}  // namespace nibble::cli
