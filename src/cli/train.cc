#include <algorithm>

#include "base/machine.h"
#include "cli/command.h"
#include "cli/data_flags.h"
#include "cli/terminal.h"
#include "train/metrics.h"
#include "train/report.h"
#include "train/sha256.h"
#include "train/trainer.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path dir, adapter, train, valid, teacher, output, calib;
  std::string mode = "qad", scales = "dynamic", trainable, schedule = "cosine", moments = "f32";
  DataFlags data;
  train::StudentOptions student;
  train::TrainerOptions trainer;
  int64_t samples = 512, limit = 0, valid_limit = 64;
  double lr = -1, kl = -1;
  uint64_t seed = 0;
  int threads = 0;
  bool loss_rows_given = false, json = false;
};

// What a flag is when it was not given, by mode.
struct Defaults {
  const char* mode;
  double lr;
  const char* trainable;
  const char* loss_rows;
  double kl;
};
constexpr Defaults kDefaults[] = {
    {"sft", 1e-5, "all", "assistant", 0},
    {"qat", 1e-5, "all", "assistant", 0},
    {"qad", 1e-5, "linears", "all", 1},
};

template <class E>
using Words = std::initializer_list<std::pair<const char*, E>>;

template <class E>
E value_of(const std::string& word, Words<E> words) {
  for (const auto& [name, value] : words) {
    if (word == name) return value;
  }
  NIBBLE_CHECK(false);  // CLI::IsMember let only these through
  return {};
}

Status complete(Flags& flags) {
  const Defaults& defaults = *std::find_if(std::begin(kDefaults), std::end(kDefaults),
                                           [&](const Defaults& d) { return flags.mode == d.mode; });
  if (flags.lr < 0) flags.lr = defaults.lr;
  if (flags.kl < 0) flags.kl = defaults.kl;
  if (flags.trainable.empty()) flags.trainable = defaults.trainable;
  if (!flags.loss_rows_given) flags.data.loss_rows = defaults.loss_rows;
  if (flags.kl > 0 && flags.teacher.empty()) {
    return invalid_argument("train: expected --teacher DIR, which the KL loss learns from")
        .with_hint("name the BF16 folder: usually the one that is trained");
  }
  if (flags.mode == "sft" && !flags.calib.empty()) {
    return invalid_argument("train: expected --calib with --mode qat or qad, as sft quantizes nothing");
  }

  train::StudentOptions& s = flags.student;
  s.quantize = flags.mode != "sft";
  s.scales = flags.scales == "frozen" ? train::Scales::frozen : train::Scales::dynamic;
  s.trainable = value_of<train::Trainable>(flags.trainable, {{"all", train::Trainable::all},
                                                             {"linears", train::Trainable::linears},
                                                             {"linears+norms", train::Trainable::linears_and_norms}});
  s.moments = value_of<ops::MomentFormat>(
      flags.moments,
      {{"f32", ops::MomentFormat::f32}, {"bf16", ops::MomentFormat::bf16}, {"q8", ops::MomentFormat::q8}});
  s.seed = flags.seed;

  train::TrainerOptions& t = flags.trainer;
  t.schedule.lr = static_cast<float>(flags.lr);
  t.schedule.shape = flags.schedule == "constant" ? train::ScheduleShape::constant : train::ScheduleShape::cosine;
  t.batch.seed = flags.seed;
  const bool ce = flags.mode != "qad", kl = flags.kl > 0;
  t.batch.objective = ce && kl ? train::Objective::both : ce ? train::Objective::ce : train::Objective::kl;
  t.loss.kl_factor = static_cast<float>(flags.kl);
  return {};
}

// Everything that a resumed run must have in common with the one it continues.
Json settings_of(const Flags& flags, const OpenModel& open, const train::Dataset& data) {
  const train::TrainerOptions& t = flags.trainer;
  return {{"mode", flags.mode},
          {"model", open.model->fingerprint},
          {"adapter", flags.adapter.string()},
          {"data", data.report.hash},
          {"prompt_lock", data.report.prompt_lock},
          {"conversations", data.samples.size()},
          {"loss_rows", flags.data.loss_rows},
          {"loss_kinds", flags.data.loss_kinds},
          {"trainable", flags.trainable},
          {"strategy", flags.student.strategy},
          {"scales", flags.scales},
          {"inputs_quantized", !flags.calib.empty()},
          {"exclude", flags.student.exclude},
          {"lora_rank", flags.student.lora.rank},
          {"lora_alpha", flags.student.lora.alpha},
          {"epochs", t.epochs},
          {"steps", t.schedule.steps},
          {"lr", flags.lr},
          {"schedule", flags.schedule},
          {"warmup", t.schedule.warmup},
          {"floor", t.schedule.floor},
          {"batch", t.batch.conversations},
          {"batch_tokens", t.batch.max_tokens},
          {"accumulate", t.accumulate},
          {"kl", flags.kl},
          {"temperature", t.loss.temperature},
          {"head_chunk", t.loss.head_chunk},
          {"beta1", t.adamw.beta1},
          {"beta2", t.adamw.beta2},
          {"weight_decay", t.adamw.weight_decay},
          {"clip", t.clip},
          {"moments", flags.moments},
          {"seed", flags.seed}};
}

Result<train::Dataset> load_data(const Flags& flags, const Path& file, const OpenModel& open, int64_t limit) {
  NIBBLE_TRY(options, dataset_options(flags.data));
  ProgressBar bar("read " + file.filename().string(), true);
  NIBBLE_TRY(data, train::load_dataset(file, *open.tokenizer, *open.chat_template, options, bar.callback()));
  if (limit > 0 && data.samples.size() > static_cast<size_t>(limit)) data.samples.resize(static_cast<size_t>(limit));
  return std::move(data);
}

// What the run tells the terminal and the metrics.
class Recorder {
 public:
  Recorder(const Flags& flags, Json settings)
      : flags_(flags), settings_(std::move(settings)), bar_("train"), progress_(bar_.callback()) {}

  train::Observer observer() {
    train::Observer o;
    o.step = [this](const train::StepResult& r) { return step(r); };
    o.eval = [this](const train::EvalResult& r) { return eval(r); };
    o.resumed = [this](int64_t at) { return open(at); };
    return o;
  }
  const train::EvalResult& first_eval() const { return first_eval_; }
  const train::EvalResult& last_eval() const { return last_eval_; }
  const train::StepResult& last_step() const { return last_step_; }

 private:
  Status open(int64_t resume_step) {
    if (log_) return {};
    NIBBLE_TRY(log, train::MetricsLog::open(flags_.output, settings_, resume_step));
    log_.emplace(std::move(log));
    return {};
  }

  Status step(const train::StepResult& r) {
    NIBBLE_RETURN_IF_ERROR(open(0));
    last_step_ = r;
    train::StepRecord record;
    record.step = r.step;
    record.loss = r.losses.loss;
    if (r.losses.ce_rows > 0) record.ce = r.losses.mean_ce();
    if (r.losses.kl_rows > 0) record.kl = r.losses.mean_kl();
    record.lr = r.lr;
    record.grad_norm = r.gradient_norm;
    record.clip = r.clip;
    record.tokens = r.losses.tokens;
    record.loss_tokens = r.losses.rows();
    record.tok_s = static_cast<double>(r.losses.tokens) / r.seconds;
    record.memory_bytes = static_cast<int64_t>(peak_memory_bytes());
    record.seconds = r.seconds;
    record.skipped = r.skipped ? 1 : 0;
    NIBBLE_RETURN_IF_ERROR(log_->add(record));
    if (r.flips) NIBBLE_RETURN_IF_ERROR(add_flips(r.step, *r.flips));
    const double trained = 100.0 * static_cast<double>(record.loss_tokens) / static_cast<double>(record.tokens);
    std::string line = fmt::format("loss {:.4f}  lr {:.1e}  norm {:.2f}  {:.0f} tok/s  {:.0f} % of tokens trained",
                                   record.loss, r.lr, r.gradient_norm, record.tok_s, trained);
    if (flips_) line += fmt::format("  {:.2f} % codes flipped", 100 * flips_->share());
    nibble::report(progress_, static_cast<uint64_t>(r.step), static_cast<uint64_t>(r.steps), line);
    return {};
  }

  Status eval(const train::EvalResult& r) {
    NIBBLE_RETURN_IF_ERROR(open(0));
    if (r.step == 0) first_eval_ = r;
    last_eval_ = r;
    if (r.flips) NIBBLE_RETURN_IF_ERROR(add_flips(r.step, *r.flips));
    if (r.losses.tokens == 0) return {};
    train::EvalRecord record;
    record.step = r.step;
    if (r.losses.ce_rows > 0) record.ce = r.losses.mean_ce();
    if (r.losses.kl_rows > 0) record.kl = r.losses.mean_kl();
    if (r.losses.kl_rows > 0) record.top1 = r.losses.top1();
    return log_->add(record);
  }

  Status add_flips(int64_t step, const train::Flips& f) {
    flips_ = f;
    const auto share = [](int64_t part, int64_t whole) {
      return static_cast<double>(part) / static_cast<double>(whole);
    };
    train::FlipRecord record;
    record.step = step;
    record.flip = share(f.flipped, f.weights);
    record.new_flip = share(f.newly_flipped, f.weights);
    record.scale_flip = share(f.scales_flipped, f.blocks);
    record.clipped = share(f.clipped, f.blocks);
    return log_->add(record);
  }

  const Flags& flags_;
  Json settings_;
  std::optional<train::MetricsLog> log_;
  std::optional<train::Flips> flips_;
  train::EvalResult first_eval_, last_eval_;
  train::StepResult last_step_;
  ProgressBar bar_;
  Progress progress_;
};

std::string percent(double share) {
  return fmt::format("{:.2f} %", 100 * share);
}

train::ReportRows results_of(const Flags& flags, const train::TrainSummary& summary, const Recorder& recorder) {
  train::ReportRows rows;
  const train::Losses &first = recorder.first_eval().losses, &last = recorder.last_eval().losses;
  if (last.kl_rows > 0) {
    rows.emplace_back("validation KL", fmt::format("{:.5f} -> {:.5f}", first.mean_kl(), last.mean_kl()));
    rows.emplace_back("validation top-1", percent(first.top1()) + " -> " + percent(last.top1()));
  }
  if (last.ce_rows > 0) {
    rows.emplace_back("validation CE", fmt::format("{:.4f} -> {:.4f}", first.mean_ce(), last.mean_ce()));
  }
  if (recorder.last_eval().flips) {
    rows.emplace_back("codes flipped", percent(recorder.last_eval().flips->share()) + " of PTQ's");
  }
  if (summary.best_step >= 0) rows.emplace_back("best step", std::to_string(summary.best_step));
  rows.emplace_back("speed", fmt::format("{:.0f} tokens/s", static_cast<double>(summary.tokens) / summary.seconds));
  rows.emplace_back("machine", machine_name());
  rows.emplace_back("checkpoint", (flags.output / "last").string());
  return rows;
}

Status write_report(const Flags& flags, const Json& settings, const train::ReportRows& results) {
  train::Report report;
  report.title = fmt::format("nibble train --mode {}: {}", flags.mode, folder_name(flags.dir));
  for (const auto& [key, value] : settings.items()) report.settings.emplace_back(key, value.dump());
  report.results = results;
  NIBBLE_TRY(metrics, train::read_metrics(flags.output));
  report.metrics = std::move(metrics);
  return write_file(flags.output / "report.html", train::to_html(report));
}

Json summary_json(const Flags& flags, const train::TrainSummary& summary, const Recorder& recorder) {
  const train::Losses &first = recorder.first_eval().losses, &last = recorder.last_eval().losses;
  Json json = {{"output", flags.output.string()},
               {"steps", summary.steps},
               {"interrupted", summary.interrupted},
               {"tokens", summary.tokens},
               {"loss_rows", summary.rows},
               {"seconds", summary.seconds},
               {"tokens_per_second", static_cast<double>(summary.tokens) / summary.seconds},
               {"loss", recorder.last_step().losses.loss},
               {"best_step", summary.best_step}};
  if (last.tokens > 0) {
    json["validation"] = {{"kl_before", first.mean_kl()}, {"kl", last.mean_kl()},         {"top1_before", first.top1()},
                          {"top1", last.top1()},          {"ce_before", first.mean_ce()}, {"ce", last.mean_ce()}};
  }
  if (recorder.last_eval().flips) json["flips"] = recorder.last_eval().flips->share();
  return json;
}

Result<int> run(Flags flags) {
  NIBBLE_RETURN_IF_ERROR(complete(flags));
  NIBBLE_TRY(open, open_model(flags.dir, flags.adapter));
  NIBBLE_TRY(data, load_data(flags, flags.train, open, flags.limit));
  train::Dataset valid;
  if (!flags.valid.empty()) {
    NIBBLE_TRY(loaded, load_data(flags, flags.valid, open, flags.valid_limit));
    valid = std::move(loaded);
  }
  const Json settings = settings_of(flags, open, data);
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

  Recorder recorder(flags, settings);
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
  auto flags = std::make_shared<Flags>();
  flags->data.options.sample.max_length = 2048;
  CLI::App* command = app.add_subcommand("train", "heal or fine-tune: SFT, QAT, QAD, from chat JSONL to a checkpoint");
  command->footer(
      "sft  trains the weights as they are, by cross-entropy on what the assistant says.\n"
      "qat  the same with the forward in NVFP4: fine-tuning and quantization in one step.\n"
      "qad  heals a quantized model: NVFP4 forward, KL to the BF16 teacher over all tokens.\n"
      "Forward, codes and scales are those that are served: what OUT/last holds is what the last step computed with.\n"
      "Written to OUT: last/ and best/ (checkpoints to serve; best needs --valid), metrics.jsonl, metrics.db,\n"
      "report.html, and checkpoints/ for --resume, which continues bit for bit.\n\n"
      "  nibble train tiny-voice --mode qad --teacher tiny-voice --data chats.jsonl --valid held-out.jsonl --lr 2e-5 "
      "\\\n"
      "    --output out/healed\n"
      "  nibble train base --mode sft --data chats.jsonl --epochs 4 --lr 1e-4 --output out/tuned\n"
      "  nibble train base --mode sft --lora 16 --data chats.jsonl --output out/adapter");
  command->add_option("DIR", flags->dir, "a BF16 or F32 checkpoint folder")->required();
  add_adapter_flag(*command, flags->adapter, "--adapter", "DIR");
  command->add_option("--data", flags->train, "conversations as chat JSONL")->required();
  command->add_option("--output", flags->output, "folder of the run")->required();
  command->add_option("--mode", flags->mode, "what is trained for")
      ->check(CLI::IsMember({"sft", "qat", "qad"}))
      ->capture_default_str();
  command->add_option("--teacher", flags->teacher, "BF16 folder whose distributions are learned (qad; or --kl)");
  command->add_option("--valid", flags->valid, "held-out conversations, evaluated along the way");
  command->add_option("--valid-limit", flags->valid_limit, "conversations of them (0 = all)")->capture_default_str();
  command->add_option("--limit", flags->limit, "train on the first N conversations (0 = all)")->capture_default_str();
  command->add_flag("--skip-bad", flags->data.options.skip_bad, "train on the sound lines of a file with bad ones");

  train::TrainerOptions& t = flags->trainer;
  command->add_option("--epochs", t.epochs, "passes over the data")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--steps", t.schedule.steps, "optimizer steps instead of epochs");
  command->add_option("--lr", flags->lr, "peak learning rate (1e-5)");
  command->add_option("--schedule", flags->schedule, "shape of the learning rate")
      ->check(CLI::IsMember({"cosine", "constant"}))
      ->capture_default_str();
  command->add_option("--warmup", t.schedule.warmup, "share of the steps, or their number from 1 on")
      ->capture_default_str();
  command->add_option("--floor", t.schedule.floor, "share of the peak at the end of the cosine")->capture_default_str();
  command->add_option("--batch", t.batch.conversations, "conversations of a micro-batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--batch-tokens", t.batch.max_tokens, "tokens of a micro-batch, at most")->capture_default_str();
  command->add_option("--accumulate", t.accumulate, "micro-batches of a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--clip", t.clip, "largest norm of the gradient (0 = any)")->capture_default_str();
  command->add_option("--weight-decay", t.adamw.weight_decay, "of the linears")->capture_default_str();
  command->add_option("--beta2", t.adamw.beta2, "of AdamW")->capture_default_str();
  command->add_option("--moments", flags->moments, "how AdamW keeps its two moments")
      ->check(CLI::IsMember({"f32", "bf16", "q8"}))
      ->capture_default_str();
  command->add_option("--kl", flags->kl, "factor of the KL loss (qad: 1, else 0)");
  command->add_option("--temperature", t.loss.temperature, "of both distributions in the KL loss")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();

  command->add_option("--train", flags->trainable, "which tensors move (qad: linears, else all)")
      ->check(CLI::IsMember({"all", "linears", "linears+norms"}));
  command->add_option("--lora", flags->student.lora.rank, "train adapters of this rank instead (0 = none)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--lora-alpha", flags->student.lora.alpha, "their scale is alpha / rank (0 = 2 * rank)");
  command->add_option("--strategy", flags->student.strategy, "how block scales are chosen (see nibble quantize)")
      ->capture_default_str();
  command->add_option("--scales", flags->scales, "chosen anew at every step, or kept as they start")
      ->check(CLI::IsMember({"dynamic", "frozen"}))
      ->capture_default_str();
  command->add_option("--exclude", flags->student.exclude, "name patterns of what is not quantized")->delimiter(',');
  command->add_option("--calib", flags->calib, "chat JSONL: quantize inputs too, under static scales (W4A4)");
  command->add_option("--samples", flags->samples, "conversations to calibrate on (0 = all)")->capture_default_str();

  add_data_flags(*command, flags->data);
  command->add_option("--eval-every", t.eval_every, "steps between evaluations (0 = every epoch)");
  command->add_option("--save-every", t.save_every, "steps between saved states (0 = with every evaluation)");
  command->add_option("--keep", t.keep, "saved states that stay")->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_flag("--resume", t.resume, "continue the run in --output");
  command->add_flag("--keep-traces", t.loss.keep_traces, "keep intermediates instead of computing them again");
  command->add_option("--seed", flags->seed, "of the order of the data and of every rounding")->capture_default_str();
  command->add_option("--threads", flags->threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, command, &action] {
    flags->loss_rows_given = command->get_option("--loss-rows")->count() > 0;
    action = [flags] { return run(*flags); };
  });
}

}  // namespace nibble::cli
