#include "synth/generate.h"

#include "cli/command.h"
#include "cli/generate_report.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "serve/server.h"
#include "synth/output.h"

namespace nibble::cli {
namespace {

struct Flags {
  std::string recipe;
  synth::TeacherOptions teacher;
  synth::GenerateOptions options;
  Path output, model, api_key_file;
  std::vector<std::string> hold_out;
  double price_in = -1, price_out = -1;
  int64_t preview = 0;
  bool resume = false, json = false;
};

Status check_flags(const Flags& flags) {
  if (flags.teacher.url.empty() == flags.teacher.command.empty()) {
    return invalid_argument("generate: expected either --teacher URL or --teacher-command 'CMD'");
  }
  if (!flags.teacher.url.empty() && flags.teacher.model.empty()) {
    return invalid_argument("generate: expected --teacher-model with --teacher");
  }
  if (flags.output.empty() && flags.preview == 0) {
    return invalid_argument("generate: expected --output FILE or --preview N");
  }
  std::error_code ignored;
  if (flags.preview == 0 && !flags.resume && std::filesystem::exists(flags.output, ignored)) {
    return invalid_argument("output: expected a new file, got one that is there ({})", flags.output.string())
        .with_hint("--resume goes on with it");
  }
  return {};
}

Result<std::unique_ptr<synth::Answers>> open_answers(const Flags& flags, const synth::Recipe& recipe,
                                                     const std::string& teacher) {
  if (flags.preview > 0) return std::make_unique<synth::Answers>();
  const Json header = {{"journal", "nibble generate"},
                       {"version", 1},
                       {"recipe", recipe.name},
                       {"fingerprint", recipe.fingerprint},
                       {"seed", flags.options.seed}};
  return synth::Answers::open(synth::journal_path(flags.output), header,
                              flags.resume ? Journal::Mode::resume : Journal::Mode::fresh, teacher);
}

Result<int> show_preview(const Flags& flags, const synth::GenerateInput& input, const synth::Origin& origin) {
  NIBBLE_TRY(rows, synth::preview(input, flags.options, flags.preview));
  if (flags.json) {
    Json list = Json::array();
    for (const synth::Accepted& one : rows)
      list.push_back(preview_json(synth::row_of(input.recipe, input.validator, one, origin), one));
    print_json(list);
  } else {
    for (const synth::Accepted& one : rows) print_preview(one);
    fmt::print("{} conversations, nothing was written\n", rows.size());
  }
  return rows.empty() ? 1 : 0;
}

Result<int> make_set(const Flags& flags, const synth::GenerateInput& input, const synth::Origin& origin) {
  synth::Collection collection(input.recipe.set.near);
  synth::GenerateReport report;
  {
    ProgressBar bar("generate");
    const Progress draw = bar.callback();
    const auto progress = [&](const synth::GenerateReport& so_far, int64_t usable) {
      nibble::report(draw, static_cast<uint64_t>(usable), static_cast<uint64_t>(input.recipe.quota()),
                     spent_text(so_far.spent));
    };
    NIBBLE_TRY(done, synth::generate(input, flags.options, collection, progress));
    report = std::move(done);
  }
  Json manifest;
  if (report.complete()) {
    NIBBLE_TRY(written, synth::write_set(flags.output, input.recipe, input.validator, collection, report, origin));
    manifest = std::move(written);
    manifest["output"] = flags.output.string();
  } else {
    manifest = synth::manifest_of(input.recipe, report, origin, "");
    manifest["output"] = nullptr;
  }
  if (flags.json) {
    print_json(manifest);
  } else {
    print_report(report, flags.output);
  }
  if (report.complete()) return 0;
  if (report.stop == synth::Stop::cancelled) return report.stop_status;
  if (report.stop != synth::Stop::none && report.stop != synth::Stop::budget) {
    return fail(report.stop_status.code(), "{}", report.stop_status.message())
        .with_hint("what was answered is kept; the same command with --resume goes on");
  }
  return 1;
}

Result<int> run(Flags flags) {
  NIBBLE_RETURN_IF_ERROR(check_flags(flags));
  NIBBLE_TRY(recipe, synth::load_recipe(flags.recipe));
  if (flags.price_in >= 0) recipe.prices.input_per_million = flags.price_in;
  if (flags.price_out >= 0) recipe.prices.output_per_million = flags.price_out;
  synth::HoldOut hold_out;
  for (const auto* names : {&recipe.hold_out.gates, &flags.hold_out}) {
    for (const std::string& name : *names) NIBBLE_RETURN_IF_ERROR(hold_out.add_cases(name));
  }
  synth::RecordCheck check;
  if (!flags.model.empty()) {
    NIBBLE_TRY(loaded, synth::RecordCheck::load(flags.model));
    check = std::move(loaded);
  }
  NIBBLE_TRY(validator, synth::Validator::make(recipe, std::move(check), &hold_out));
  if (!flags.api_key_file.empty()) {
    NIBBLE_TRY(key, serve::read_api_key(flags.api_key_file));
    flags.teacher.api_key = key;
  }
  flags.teacher.cancel = flags.options.ask.cancel = interrupt_token();
  NIBBLE_TRY(make_teacher, synth::teacher_of(flags.teacher));
  const synth::Origin origin = {flags.teacher.url.empty() ? flags.teacher.command : flags.teacher.model,
                                flags.options.seed, kVersion};
  NIBBLE_TRY(answers, open_answers(flags, recipe, origin.teacher));
  const synth::GenerateInput input = {recipe, validator, hold_out, make_teacher, *answers};
  return flags.preview > 0 ? show_preview(flags, input, origin) : make_set(flags, input, origin);
}

void add_flags(CLI::App& command, Flags& flags) {
  command.add_option("RECIPE", flags.recipe, "a recipe of the binary, or a file that ends in .json")->required();
  command.add_option("--teacher", flags.teacher.url, "base URL of an OpenAI-compatible server");
  command.add_option("--teacher-model", flags.teacher.model, "model id to ask it for");
  command.add_option("--teacher-command", flags.teacher.command,
                     "a command line that reads a prompt and writes an answer; exit code 75 = try again later");
  command.add_option("--api-key-file", flags.api_key_file, "file with the server's key");
  command.add_option("--output", flags.output, "the new JSONL file");
  command.add_option("--preview", flags.preview, "show N conversations and write nothing")->check(CLI::Range(1, 1000));
  command.add_option("--model", flags.model,
                     "count tokens as this checkpoint does, and check what training would refuse");
  command.add_option("--holdout", flags.hold_out, "gate recipe or file of cases whose prompts are held out, too");
  command.add_option("--seed", flags.options.seed, "another seed draws other conversations")->capture_default_str();
  command.add_option("--jobs", flags.options.ask.jobs, "requests in flight at most")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command.add_option("--budget-tokens", flags.options.ask.budget.tokens, "hard limit, prompts and answers (0 = none)")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--budget-cost", flags.options.ask.budget.cost, "hard limit in the currency of the prices (0 = none)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--price-in", flags.price_in, "per million tokens of prompts")->check(CLI::NonNegativeNumber);
  command.add_option("--price-out", flags.price_out, "per million tokens of answers")->check(CLI::NonNegativeNumber);
  command.add_option("--idle-timeout", flags.teacher.idle_s, "seconds that an answer may stall")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--answer-timeout", flags.teacher.answer_s, "seconds that an answer may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--patience", flags.options.ask.patience_s, "seconds that the teacher may answer nothing but 429")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--retries", flags.options.ask.retries, "further attempts at a request that broke off")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  command.add_flag("--resume", flags.resume, "go on with the journal of an earlier run");
  command.add_flag("--json", flags.json, "print one JSON document");
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("generate", "Have a teacher write training conversations, checked one by one");
  command->footer(fmt::format(
      "A recipe says what is asked for, how many of each kind, and what a conversation must be. Recipes in the "
      "binary:\n"
      "{}. The teacher is any OpenAI-compatible server, or any command that reads a prompt on\n"
      "standard input. Every answer goes into FILE.journal; after Ctrl-C, a crash or a spent budget --resume goes on "
      "and\n"
      "comes to the same set. FILE appears when it is complete, with FILE.manifest.json; else the command says what "
      "falls\n"
      "short and ends with 1.\n\n"
      "  nibble generate companion --teacher https://host --teacher-model M --api-key-file KEY --output chats.jsonl\n"
      "  nibble generate companion --teacher-command 'my-client --print' --preview 5\n"
      "  nibble generate small_world --teacher http://127.0.0.1:8080 --teacher-model tiny-voice --output small.jsonl",
      fmt::join(synth::recipe_names(), ", ")));
  add_flags(*command, *flags);
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli
