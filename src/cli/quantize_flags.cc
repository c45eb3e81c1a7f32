#include "cli/quantize_flags.h"

#include <algorithm>

#include "checkpoint/fingerprint.h"
#include "gate/machines.h"
#include "quantize/calibrated.h"

namespace nibble::cli {
namespace {

using quantize::Format;
using quantize::Inputs;
using quantize::Recipe;
using quantize::Rule;

constexpr const char* kFooter =
    "Quantizes the projections of attention, delta rule and MLP, by default to four bits a weight with one scale for "
    "16\n"
    "weights (4.5 bits in all); norms, gates, embedding and, unless the recipe names it, the head stay. How is said by "
    "a\n"
    "recipe, one of those in the binary (--recipe list) or a JSON file. Strategy max maps the largest weight of a "
    "block\n"
    "to the largest code; mse takes the scale with the smallest squared error, which costs more time and less "
    "quality.\n"
    "Weights alone are quantized, unless the recipe or --inputs a4 gives inputs static scales, which take --calib.\n"
    "A pattern of --exclude matches from any dot of a name on (mlp.down_proj, layers.0), or the whole name where it\n"
    "begins with *.\n\n"
    "Tensors stream through, so memory stays small for any size. The source is never changed; the output appears\n"
    "complete or not at all. It grows in OUT.partial: after an interruption the same command goes on from there.\n\n"
    "  nibble quantize models/tiny-voice --output out/tiny-voice-nvfp4\n"
    "  nibble quantize models/tiny-voice --strategy mse --output out/tiny-voice-mse\n"
    "  nibble quantize models/tiny-voice --calib chat.jsonl --inputs a4 --output out/tiny-voice-w4a4\n"
    "  nibble quantize models/tiny-voice --recipe nvidia --calib chat.jsonl --output out/tiny-voice-mixed\n"
    "  nibble quantize models/tiny-voice --format compressed-tensors --output out/tiny-voice-ct\n"
    "  nibble quantize models/tiny-voice --adapter lora --output out/tuned-nvfp4\n"
    "  nibble quantize models/tiny-voice --exclude layers.0 --plan";

// `inputs` in the place of what the rules say: a4 for NVFP4 weights, a16 for all.
void round_inputs(Recipe& recipe, const std::string& inputs) {
  for (Rule& rule : recipe.rules) {
    if (inputs == "a16") rule.inputs = Inputs::a16;
    if (inputs == "a4" && rule.format == Format::nvfp4) rule.inputs = Inputs::a4;
  }
}

// "gb10=50"
Status read_speed(QuantizeFlags& flags) {
  if (flags.speed.empty()) return {};
  for (const gate::Machine& machine : gate::kMachines) {
    const std::string_view speed = flags.speed;
    if (!speed.starts_with(machine.name) || speed.substr(machine.name.size()).substr(0, 1) != "=") continue;
    const std::string number(speed.substr(machine.name.size() + 1));
    char* end = nullptr;
    const double tok_s = std::strtod(number.c_str(), &end);
    if (number.empty() || *end != 0 || !(tok_s > 0)) break;
    flags.budget.min_tok_s = tok_s;
    flags.budget.bytes_per_second = machine.bytes_per_second;
    return {};
  }
  return invalid_argument("--min-tok-s: expected gb10=N or h200=N with N tokens per second, got {}", flags.speed);
}

Json description_of(const Path& folder) {
  Json files = Json::array();
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code gone;
    files.push_back(
        {it->path().filename().string(), it->file_size(gone), it->last_write_time(gone).time_since_epoch().count()});
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

bool QuantizeFlags::rounds_inputs() const {
  const std::vector<Rule>& rules = options.recipe.rules;
  return std::any_of(rules.begin(), rules.end(), [](const Rule& rule) { return rule.inputs != Inputs::a16; });
}

void add_quantize_flags(CLI::App& command, QuantizeFlags& flags) {
  command.footer(kFooter);
  command.add_option("DIR", flags.dir, "a BF16, F16 or F32 checkpoint folder");
  add_adapter_flag(command, flags.adapter);
  command.add_option("--output", flags.output, "new folder for the result");
  auto* strategy = command.add_option("--strategy", flags.strategy, "a recipe of the binary by its name (mse)");
  command.add_option("--recipe", flags.recipe, "the same, or a JSON file; list: which there are")->excludes(strategy);
  command.add_option("--format", flags.format, "layout of the output")
      ->check(CLI::IsMember({"modelopt", "compressed-tensors"}))
      ->capture_default_str();
  command.add_option("--target", flags.target, "refuse what this server does not load")
      ->check(CLI::IsMember({"vllm", "sglang", "trtllm"}));
  command
      .add_option("--inputs", flags.inputs,
                  "in the place of the recipe's: a16 leaves inputs as they are, a4 rounds\n"
                  "those of NVFP4 weights under static scales")
      ->check(CLI::IsMember({"a16", "a4"}));
  command.add_option("--exclude", flags.options.exclude, "name patterns of what stays as it is")->delimiter(',');
  command.add_flag("--untie", flags.options.untie, "let a tied head become a tensor of its own, to quantize it");
  command.add_option("--calib", flags.calib, "conversations as chat JSONL, for recipes that need data");
  command.add_option("--samples", flags.samples, "conversations to calibrate on (0 = all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--holdout", flags.holdout,
                     "other conversations, to measure the result on; none: do not. Without it: what --calib\n"
                     "has beyond --samples, or else its last tenth");
  command
      .add_option("--sensitivity", flags.sensitivity,
                  "how auto_mixed judges a format: kl, by what it does to the next token,\n"
                  "or gradient, which costs one pass for all")
      ->check(CLI::IsMember({"kl", "gradient"}))
      ->capture_default_str();
  auto* bits = command
                   .add_option("--effective-bits", flags.budget.effective_bits,
                               "search formats within so many bits a weight, on average")
                   ->check(CLI::Range(4.5, 16.0));
  auto* bytes =
      command.add_option("--max-bytes", flags.budget.max_bytes, "search formats within so many bytes")->excludes(bits);
  command
      .add_option("--min-tok-s", flags.speed,
                  "search formats that decode so many tokens per second by the bytes they read: gb10=50 or\n"
                  "h200=800 (240 GB/s and 4.27 TB/s)")
      ->excludes(bits)
      ->excludes(bytes);
  command.add_option("--shard-size", flags.options.shard_bytes, "bytes of one file of weights (500MB, 2GB, …)")
      ->transform(CLI::AsSizeValue(true))
      ->check(CLI::PositiveNumber)
      ->default_str("2GB");
  command.add_option("--threads", flags.threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command.add_flag("--plan", flags.plan, "print what would be done and why, and stop");
  command.add_flag("--json", flags.json, "print one JSON document");
}

Status complete(QuantizeFlags& flags) {
  NIBBLE_RETURN_IF_ERROR(read_speed(flags));
  if (flags.dir.empty()) return invalid_argument("quantize: expected DIR, a checkpoint folder, got none");
  const std::string name = !flags.recipe.empty() ? flags.recipe : !flags.strategy.empty() ? flags.strategy : "mse";
  NIBBLE_TRY(recipe, quantize::find_recipe(name));
  round_inputs(recipe, flags.inputs);
  if (flags.budget.effective_bits) recipe.effective_bits = flags.budget.effective_bits;
  flags.options.recipe = std::move(recipe);
  flags.options.layout = flags.format == "modelopt" ? quantize::Layout::modelopt : quantize::Layout::compressed_tensors;
  if (flags.plan) return {};
  if (flags.output.empty()) {
    return invalid_argument("quantize: expected --output OUT").with_hint("or --plan, to see what would be done");
  }
  if (flags.calib.empty() && quantize::needs_data(flags.options.recipe, flags.budget)) {
    return invalid_argument("quantize: expected --calib FILE, as the recipe {} needs data", flags.options.recipe.name)
        .with_hint("chat JSONL, a few hundred conversations; max, mse and four_over_six need none");
  }
  return {};
}

Result<std::string> other_inputs(const QuantizeFlags& flags) {
  Json inputs = {{"samples", flags.samples},
                 {"own_holdout", flags.holdout.empty()},
                 {"sensitivity", flags.sensitivity},
                 {"budget", {flags.budget.max_bytes.value_or(0), flags.speed}},
                 {"adapter", description_of(flags.adapter)}};
  if (!flags.calib.empty()) {
    NIBBLE_TRY(text, read_file(flags.calib));
    inputs["calib"] = checkpoint::sha256(std::vector<std::string_view>{text});
  }
  return inputs.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace nibble::cli
