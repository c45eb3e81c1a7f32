#include "cli/command.h"
#include "cli/gate_run.h"
#include "cli/gate_suite.h"

namespace nibble::cli {

void add_gate(CLI::App& app, Action& action) {
  auto flags = std::make_shared<GateFlags>();
  flags->command = "gate";
  flags->default_recipe = "companion";
  CLI::App* command =
      app.add_subcommand("gate", "Play behaviour cases against a model or any OpenAI-compatible server");
  command->footer(
      "A case is a short conversation: what the user says, how tools answer, and what must hold of the replies. Gates\n"
      "are rates over cases, findings of detectors over all replies, and latencies (docs/gates.md).\n\n"
      "  nibble gate --model DIR --output runs/today\n"
      "  nibble gate --endpoint http://127.0.0.1:8000 --against DIR\n"
      "  nibble gate --model models/tiny-voice --cases cases.jsonl\n"
      "  nibble gate --model DIR --suite gsm8k --data gsm8k\n\n"
      "Exit codes: 0 all judged gates pass, 1 one does not, 2 a server that does not answer or a wrong recipe.");
  add_play_flags(*command, *flags);
  add_suite_flags(*command, *flags);
  command->add_option("--cases", flags->cases, "further cases as JSON Lines, in the form of the small world");
  command->add_option("--sample", flags->sample, "play N cases, every category with its share (0 = all)")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--quick", flags->quick, "five cases only: does it work at all?");
  command->add_option("--repeat", flags->run.repeats, "play every case so often, with seeds 1, 2, …")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--against", flags->against,
                      "a second server (URL) or model (folder, GGUF): the same cases, compared");
  command->add_flag("--hardened", flags->hardened,
                    "play every case twice, the second time with the recipe's hardened prompt");
  command->add_option("--hardened-file", flags->hardened_file, "the hardened prompt, instead of the recipe's");
  command->add_flag("--strict-ci", flags->report.strict, "a rate passes only if its whole 95 % interval does");
  command->add_flag("--fail-fast", flags->run.fail_fast, "stop at the first case that fails");
  command->add_option("--shard", flags->shard, "i/n: play every n-th case, from the i-th on");
  command->add_option("--merge", flags->merge,
                      "instead of playing: folders of all the shards, put together in --output; with the flags that\n"
                      "chose their cases");
  command->add_option("--suppress", flags->suppressions,
                      "findings that are none, as JSON Lines {case, detector, reason}; the report lists them");
  command->add_option("--judge", flags->judge.endpoint, "a server whose model judges, too: reported, no gate hears it");
  command->add_option("--judge-model", flags->judge.served_name, "its model id (default: the first listed)");
  command->add_option("--judge-api-key-file", flags->judge.api_key_file, "file with that server's key");
  command->add_option("--save-baseline", flags->save_baseline, "keep which cases passed, for later runs");
  command->add_option("--baseline", flags->baseline, "say what changed since that run");
  command->add_flag("--fail-on-regression", flags->fail_on_regression, "exit code 1 when something got worse");
  command->callback([flags, &action] { action = [flags] { return run_gate_command(*flags); }; });
}

void add_converse(CLI::App& app, Action& action) {
  auto flags = std::make_shared<GateFlags>();
  flags->command = "converse";
  flags->default_recipe = "converse";
  flags->play.play_on = true;
  CLI::App* command = app.add_subcommand("converse", "Hold scripted conversations and say what went wrong in them");
  command->footer(
      "31 conversations of up to 20 turns in 8 categories, with mock tools, an interruption and silences. A "
      "conversation\n"
      "goes on after a turn that fails, and passes when all of its turns do.\n\n"
      "  nibble converse --model DIR --output runs/talk\n"
      "  nibble converse --endpoint http://127.0.0.1:8000 --sessions 44 --messages 514");
  add_play_flags(*command, *flags);
  command->add_option("--sessions", flags->sessions, "repeat the conversations, reseeded, until so many were held")
      ->check(CLI::Range(int64_t{1}, int64_t{100'000}));
  command->add_option("--messages", flags->messages, "and until the user has said so many messages")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  command->callback([flags, &action] { action = [flags] { return run_gate_command(*flags); }; });
}

}  // namespace nibble::cli
