#include "cli/command.h"
#include "cli/data_flags.h"
#include "cli/data_report.h"
#include "cli/terminal.h"
#include "train/split.h"

namespace nibble::cli {
namespace {

struct CheckFlags {
  Path file, model;
  DataFlags data;
  int show = 3;
  bool json = false;
};

struct SplitFlags {
  Path file, output;
  double valid = 0.1;
  uint64_t seed = 0;
  bool json = false;
};

struct DedupeFlags {
  Path file, output;
  bool json = false;
};

Result<int> check(const CheckFlags& flags) {
  NIBBLE_TRY(options, dataset_options(flags.data));
  NIBBLE_TRY(tokenizer, text::Tokenizer::load(flags.model));
  NIBBLE_TRY(chat_template, text::ChatTemplate::load(flags.model));
  train::Dataset dataset;
  {
    ProgressBar bar("check", true);
    NIBBLE_TRY(read, train::inspect_dataset(flags.file, tokenizer, chat_template, options, bar.callback()));
    dataset = std::move(read);
  }
  flags.json ? print_json(report_json(dataset.report)) : print_report(dataset, tokenizer, flags.show);
  return dataset.report.bad > 0 || dataset.samples.empty() ? 2 : 0;
}

Result<int> split(const SplitFlags& flags) {
  ProgressBar bar("split", true);
  NIBBLE_TRY(report, train::split_file(flags.file, flags.output, flags.valid, flags.seed, bar.callback()));
  if (flags.json) {
    print_json({{"train", report.train},
                {"valid", report.valid},
                {"groups", report.groups},
                {"valid_groups", report.valid_groups},
                {"output", flags.output.string()}});
  } else {
    fmt::print("wrote {}: train.jsonl {} records, valid.jsonl {} ({:.1f} %); {} of {} groups held out\n",
               flags.output.string(), report.train, report.valid,
               100.0 * static_cast<double>(report.valid) / static_cast<double>(report.train + report.valid),
               report.valid_groups, report.groups);
  }
  return 0;
}

Result<int> dedupe(const DedupeFlags& flags) {
  ProgressBar bar("dedupe", true);
  NIBBLE_TRY(report, train::dedupe_file(flags.file, flags.output, bar.callback()));
  if (flags.json) {
    print_json({{"records", report.records}, {"kept", report.kept}, {"output", flags.output.string()}});
  } else {
    fmt::print("wrote {}: {} of {} records, {} exact repetitions left out\n", flags.output.string(), report.kept,
               report.records, report.records - report.kept);
  }
  return 0;
}

void add_check(CLI::App& data, Action& action) {
  auto flags = std::make_shared<CheckFlags>();
  CLI::App* command = data.add_subcommand("check", "Everything that training would refuse, and what it would train");
  command->footer(
      "Every line is parsed, rendered by the model's own chat template and tokenized, exactly as training and the "
      "server\n"
      "do it. A bad line is named with its cause. Then three samples are shown with what the model learns to write in\n"
      "colour (in [[brackets]] in a pipe): the assistant's words, calls and <|im_end|>, never its header, never "
      "others'\n"
      "text. --thinking says how the server will run; the prompt that it will send must be the beginning of the\n"
      "training text, token by token. Exit code 2 when a line is bad.\n\n"
      "  nibble data check chats.jsonl --model models/tiny-voice\n"
      "  nibble data check chats.jsonl --model DIR --max-length 2048 --overflow left-turns\n"
      "  nibble data check reasoning.jsonl --model DIR --thinking on --json");
  command->add_option("FILE", flags->file, "conversations as JSONL, ShareGPT or prompt/completion")->required();
  command->add_option("--model", flags->model, "the checkpoint folder to be trained: its tokenizer and template")
      ->required();
  add_data_flags(*command, flags->data);
  command->add_option("--errors", flags->data.options.max_errors, "show at most N bad lines")->capture_default_str();
  command->add_option("--show", flags->show, "samples to show")->check(CLI::Range(0, 1000))->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return check(*flags); }; });
}

void add_split(CLI::App& data, Action& action) {
  auto flags = std::make_shared<SplitFlags>();
  CLI::App* command = data.add_subcommand("split", "Training and validation files that share no group");
  command->footer(
      "Records of one group stay together, else validation measures memory. The group is the first of the keys\n"
      "\"persona\", \"template\" and \"id-group\", in the record or in its \"meta\"; without them, the system prompt "
      "with "
      "the\n"
      "first text of the user. A group's side depends on the seed and the group alone, so data that grows keeps its\n"
      "validation set; the share is met as closely as the groups allow. Lines are copied as they are.\n\n"
      "  nibble data split chats.jsonl --valid 0.1 --seed 1 --output data/");
  command->add_option("FILE", flags->file, "conversations as JSONL")->required();
  command->add_option("--output", flags->output, "new folder for train.jsonl and valid.jsonl")->required();
  command->add_option("--valid", flags->valid, "share of the records to hold out")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "another seed holds out other groups")->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return split(*flags); }; });
}

void add_dedupe(CLI::App& data, Action& action) {
  auto flags = std::make_shared<DedupeFlags>();
  CLI::App* command = data.add_subcommand("dedupe", "Leave out exact repetitions of conversations");
  command->footer(
      "Of the records with the same messages and tools the first stays, as it is, whatever their other keys say.\n\n"
      "  nibble data dedupe chats.jsonl --output unique.jsonl");
  command->add_option("FILE", flags->file, "conversations as JSONL")->required();
  command->add_option("--output", flags->output, "the new file")->required();
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return dedupe(*flags); }; });
}

}  // namespace

void add_data(CLI::App& app, Action& action) {
  CLI::App* data = app.add_subcommand("data", "Check, split and clean training data");
  data->footer(
      "  nibble data check chats.jsonl --model DIR          what is wrong, and what would be trained\n"
      "  nibble data split chats.jsonl --output data/       training and validation without a common group\n"
      "  nibble data dedupe chats.jsonl --output new.jsonl  without exact repetitions");
  data->require_subcommand(1);
  add_check(*data, action);
  add_split(*data, action);
  add_dedupe(*data, action);
}

}  // namespace nibble::cli
