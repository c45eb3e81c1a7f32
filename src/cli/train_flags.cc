#include "cli/train_flags.h"

#include <algorithm>

#include "cli/command.h"
#include "cli/train_recipes.h"
#include "io/gguf.h"

namespace nibble::cli {
namespace {

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

void add_optimizer_flags(CLI::App& command, TrainFlags& flags) {
  train::TrainerOptions& t = flags.trainer;
  command.add_option("--epochs", t.epochs, "passes over the data")->check(CLI::PositiveNumber)->capture_default_str();
  command.add_option("--steps", t.schedule.steps, "optimizer steps instead of epochs");
  command.add_option("--lr", flags.lr, "peak learning rate (1e-5)");
  command.add_option("--schedule", flags.schedule, "shape of the learning rate")
      ->check(CLI::IsMember({"cosine", "constant"}))
      ->capture_default_str();
  command.add_option("--warmup", t.schedule.warmup, "share of the steps, or their number from 1 on")
      ->capture_default_str();
  command.add_option("--floor", t.schedule.floor, "share of the peak at the end of the cosine")->capture_default_str();
  command.add_option("--batch", t.batch.conversations, "conversations of a micro-batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--batch-tokens", t.batch.max_tokens, "tokens of a micro-batch, at most")->capture_default_str();
  command.add_option("--accumulate", t.accumulate, "micro-batches of a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--clip", t.clip, "largest norm of the gradient (0 = any)")->capture_default_str();
  command.add_option("--weight-decay", t.adamw.weight_decay, "of the linears")->capture_default_str();
  command.add_option("--beta2", t.adamw.beta2, "of AdamW")->capture_default_str();
  command.add_option("--moments", flags.moments, "how AdamW keeps its two moments")
      ->check(CLI::IsMember({"f32", "bf16", "q8"}))
      ->capture_default_str();
  command.add_option("--kl", flags.kl, "factor of the KL loss (qad: 1, else 0)");
  command.add_option("--temperature", t.loss.temperature, "of both distributions in the KL loss")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

void add_student_flags(CLI::App& command, TrainFlags& flags) {
  command.add_option("--train", flags.trainable, "which tensors move (qad: linears, else all)")
      ->check(CLI::IsMember({"all", "linears", "linears+norms"}));
  command.add_option("--lora", flags.student.lora.rank, "train adapters of this rank instead (0 = none)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--lora-alpha", flags.student.lora.alpha, "their scale is alpha / rank (0 = 2 * rank)");
  command.add_option("--strategy", flags.student.strategy, "how block scales are chosen (see nibble quantize)")
      ->capture_default_str();
  command.add_option("--scales", flags.scales, "chosen anew at every step, or kept as they start")
      ->check(CLI::IsMember({"dynamic", "frozen"}))
      ->capture_default_str();
  command.add_option("--exclude", flags.student.exclude, "name patterns of what is not quantized")->delimiter(',');
  command.add_option("--calib", flags.calib, "chat JSONL: quantize inputs too, under static scales (W4A4)");
  command.add_option("--samples", flags.samples, "conversations to calibrate on (0 = all)")->capture_default_str();
}

void add_run_flags(CLI::App& command, TrainFlags& flags) {
  train::TrainerOptions& t = flags.trainer;
  command.add_option("--eval-every", t.eval_every, "steps between evaluations (0 = every epoch)");
  command.add_option("--save-every", t.save_every, "steps between saved states (0 = with every evaluation)");
  command.add_option("--keep", t.keep, "saved states that stay")->check(CLI::Range(1, 1000))->capture_default_str();
  command.add_flag("--resume", t.resume, "continue the run in --output");
  command.add_flag(
      "--keep-traces,!--recompute", flags.traces,
      "keep the intermediates of a micro-batch, or compute them again: the same bits, with more memory or\n"
      "more time (kept where the plan then takes no more than half of the memory)");
  command.add_option("--seed", flags.seed, "of the order of the data and of every rounding")->capture_default_str();
  command.add_option("--threads", flags.threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command.add_flag("--plan", flags.plan, "print the memory plan and stop; DIR may be a size such as 9b");
  command.add_flag("--check", flags.check,
                   "check --data and --valid, print what would be trained and the plan, and stop");
  add_hold_out_flags(command, flags.hold_out, false);
  command.add_option("--memory", flags.memory_gb, "plan for so many GB free instead of what is free here")
      ->check(CLI::PositiveNumber);
  command.add_flag("--json", flags.json, "print one JSON document");
}

}  // namespace

Status use_recipe(CLI::App& command, TrainFlags& flags) {
  if (!flags.recipe.empty()) {
    NIBBLE_TRY(recipe, find_recipe(flags.recipe));
    NIBBLE_RETURN_IF_ERROR(apply_recipe(command, recipe));
  }
  flags.loss_rows_given = command.get_option("--loss-rows")->count() > 0;
  return {};
}

Status complete(TrainFlags& flags) {
  if (flags.dir.empty()) return invalid_argument("train: expected DIR, a checkpoint folder, got none");
  if (is_gguf(flags.dir)) {
    return unsupported("train: expected a checkpoint folder, got a GGUF file ({})", flags.dir.string())
        .with_hint("nibble convert FILE --format bf16 --output DIR makes a folder of it");
  }
  const bool before = flags.plan || flags.check;  // nothing is trained
  if (flags.train.empty() && !flags.plan) return invalid_argument("train: expected --data FILE, got none");
  if (flags.output.empty() && !before) return invalid_argument("train: expected --output DIR, got none");
  const Defaults& defaults = *std::find_if(std::begin(kDefaults), std::end(kDefaults),
                                           [&](const Defaults& d) { return flags.mode == d.mode; });
  if (flags.lr < 0) flags.lr = defaults.lr;
  if (flags.kl < 0) flags.kl = defaults.kl;
  if (flags.trainable.empty()) flags.trainable = defaults.trainable;
  if (!flags.loss_rows_given) flags.data.loss_rows = defaults.loss_rows;
  if (flags.kl > 0 && flags.teacher.empty() && !before) {
    return invalid_argument("train: expected --teacher DIR, which the KL loss learns from")
        .with_hint("name the BF16 folder: usually the one that is trained");
  }
  if (flags.kl == 0 && !flags.sidecar.empty()) {
    return invalid_argument("train: expected --sidecar with a KL loss, as nothing else has a teacher")
        .with_hint("--mode qad has one, and so has --kl above 0");
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

Json settings_of(const TrainFlags& flags, const std::string& model_fingerprint, const train::Dataset& data) {
  const train::TrainerOptions& t = flags.trainer;
  return {{"mode", flags.mode},
          {"model", model_fingerprint},
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

void add_train_flags(CLI::App& command, TrainFlags& flags) {
  flags.data.options.sample.max_length = 2048;
  command.footer(
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
      "  nibble train base --mode sft --lora 16 --data chats.jsonl --output out/adapter\n"
      "  nibble train 9b --mode qad --moments q8 --plan --memory 121");
  command.add_option("DIR", flags.dir, "a BF16 or F32 checkpoint folder");
  add_adapter_flag(command, flags.adapter, "--adapter", "DIR");
  command.add_option("--data", flags.train, "conversations as chat JSONL");
  command.add_option("--output", flags.output, "folder of the run");
  command.add_option("--recipe", flags.recipe, "flags by name, or from a JSON file; those given win; list shows them");
  command.add_option("--mode", flags.mode, "what is trained for")
      ->check(CLI::IsMember({"sft", "qat", "qad"}))
      ->capture_default_str();
  command.add_option("--teacher", flags.teacher, "BF16 folder whose distributions are learned (qad; or --kl)");
  command.add_option("--sidecar", flags.sidecar,
                     "file of the teacher's hidden states: written where missing, then read instead of running it");
  command.add_option("--valid", flags.valid, "held-out conversations, evaluated along the way");
  command.add_option("--valid-limit", flags.valid_limit, "conversations of them (0 = all)")->capture_default_str();
  command.add_option("--limit", flags.limit, "train on the first N conversations (0 = all)")->capture_default_str();
  command.add_flag("--skip-bad", flags.data.options.skip_bad, "train on the sound lines of a file with bad ones");
  add_optimizer_flags(command, flags);
  add_student_flags(command, flags);
  add_data_flags(command, flags.data);
  add_run_flags(command, flags);
}

}  // namespace nibble::cli
