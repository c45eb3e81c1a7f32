#include "cli/command.h"
#include "cli/terminal.h"
#include "cli/train_flags.h"
#include "cli/train_recorder.h"
#include "train/sha256.h"

namespace nibble::cli {
namespace {

Result<train::Dataset> load_data(const TrainFlags& flags, const Path& file, const OpenModel& open, int64_t limit) {
  NIBBLE_TRY(options, dataset_options(flags.data));
  ProgressBar bar("read " + file.filename().string(), true);
  NIBBLE_TRY(data, train::load_dataset(file, *open.tokenizer, *open.chat_template, options, bar.callback()));
  if (limit > 0 && data.samples.size() > static_cast<size_t>(limit)) data.samples.resize(static_cast<size_t>(limit));
  return std::move(data);
}

Result<int> run(TrainFlags flags) {
  NIBBLE_RETURN_IF_ERROR(complete(flags));
  NIBBLE_TRY(open, open_model(flags.dir, flags.adapter));
  NIBBLE_TRY(data, load_data(flags, flags.train, open, flags.limit));
  train::Dataset valid;
  if (!flags.valid.empty()) {
    NIBBLE_TRY(loaded, load_data(flags, flags.valid, open, flags.valid_limit));
    valid = std::move(loaded);
  }
  const Json settings = settings_of(flags, open.model->fingerprint, data);
  flags.trainer.settings = train::Sha256().add(settings.dump()).hex();

  ThreadPool pool(flags.threads);
  Context cx(pool, Numeric::exact);
  cx.cancel = interrupt_token();
  if (!flags.calib.empty()) {
    NIBBLE_TRY(amax, calibrated_amax(cx, open, flags.calib, flags.samples));
    flags.student.input_amax = std::move(amax);
  }
  std::optional<checkpoint::LoadedModel> teacher_model;
  std::optional<train::ResidentTeacher> teacher;
  if (flags.kl > 0) {
    NIBBLE_TRY(loaded, checkpoint::load_checkpoint(flags.teacher, {}));
    if (loaded.weights.config.vocab != open.model->weights.config.vocab) {
      return invalid_argument("teacher: expected the vocabulary of the student ({}), got {}",
                              open.model->weights.config.vocab, loaded.weights.config.vocab);
    }
    teacher_model = std::move(loaded);
    teacher.emplace(teacher_model->weights);
  }
  NIBBLE_TRY(student, train::Student::create(cx, flags.dir, std::move(*open.model), flags.student));

  TrainRecorder recorder(flags, settings);
  const train::Exporter exporter({flags.dir, settings.dump(2) + "\n"}, pool);
  NIBBLE_TRY(summary, train::train(cx, *student, teacher ? &*teacher : nullptr, data.samples, valid.samples,
                                   flags.trainer, exporter, flags.output, recorder.observer()));
  const train::ReportRows results = results_of(flags, summary, recorder);
  NIBBLE_RETURN_IF_ERROR(write_report(flags, settings, results));
  if (flags.json) {
    print_json(summary_json(flags, summary, recorder));
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
    flags->loss_rows_given = command->get_option("--loss-rows")->count() > 0;
    action = [flags] { return run(*flags); };
  });
}

}  // namespace nibble::cli
