#include "cli/command.h"
#include "cli/data_flags.h"
#include "cli/data_report.h"
#include "cli/hold_out_flags.h"
#include "cli/terminal.h"
#include "synth/data_stats.h"
#include "train/split.h"

namespace nibble::cli {
namespace {

struct CheckFlags {
  Path file, model;
  DataFlags data;
  HoldOutFlags hold_out;
  int show = 3;
  bool json = false;
};

struct SplitFlags {
  Path file, output;
  HoldOutFlags hold_out;
  double valid = 0.1;
  uint64_t seed = 0;
  bool json = false;
};

struct DedupeFlags {
  Path file, output;
  HoldOutFlags hold_out;
  double near = 0;
  bool json = false;
};

struct StatsFlags {
  Path file, model;
  HoldOutFlags hold_out;
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
  NIBBLE_TRY(held_out, look_for_held_out(flags.file, flags.hold_out, options.max_errors));
  if (flags.json) {
    Json json = report_json(dataset.report);
    json["holdout"] = hold_out_json(held_out);
    print_json(json);
  } else {
    print_report(dataset, tokenizer, flags.show);
    print_hold_out(held_out);
  }
  return dataset.report.bad > 0 || dataset.samples.empty() || held_out.errors() > 0 ? 2 : 0;
}

Result<int> split(const SplitFlags& flags) {
  NIBBLE_RETURN_IF_ERROR(refuse_held_out(flags.file, flags.hold_out));
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
  NIBBLE_RETURN_IF_ERROR(refuse_held_out(flags.file, flags.hold_out));
  ProgressBar bar("dedupe", true);
  NIBBLE_TRY(report, train::dedupe_file(flags.file, flags.output, flags.near, bar.callback()));
  if (flags.json) {
    print_json(
        {{"records", report.records}, {"kept", report.kept}, {"near", report.near}, {"output", flags.output.string()}});
  } else {
    fmt::print("wrote {}: {} of {} records, {} exact repetitions left out, {} near ones\n", flags.output.string(),
               report.kept, report.records, report.records - report.kept - report.near, report.near);
  }
  return 0;
}

Result<int> stats(const StatsFlags& flags) {
  synth::RecordCheck check;
  if (!flags.model.empty()) {
    NIBBLE_TRY(loaded, synth::RecordCheck::load(flags.model));
    check = std::move(loaded);
  }
  synth::DataStats found;
  {
    ProgressBar bar("stats", true);
    NIBBLE_TRY(counted, synth::data_stats(flags.file, check, bar.callback()));
    found = std::move(counted);
  }
  NIBBLE_TRY(held_out, look_for_held_out(flags.file, flags.hold_out, 0));
  if (flags.json) {
    Json json = stats_json(found);
    json["holdout"] = hold_out_json(held_out);
    print_json(json);
  } else {
    print_stats(found);
    print_hold_out(held_out);
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
      "training text, token by token. A user's text that is a gate case's, or .8 similar to it, is reported; with\n"
      "--holdout or --recipe it is an error. Exit code 2 when a line is bad.\n\n"
      "  nibble data check chats.jsonl --model models/tiny-voice\n"
      "  nibble data check chats.jsonl --model DIR --max-length 2048 --overflow left-turns\n"
      "  nibble data check small.jsonl --model models/tiny-voice --recipe small_world\n"
      "  nibble data check reasoning.jsonl --model DIR --thinking on --json");
  command->add_option("FILE", flags->file, "conversations as JSONL, ShareGPT or prompt/completion")->required();
  command->add_option("--model", flags->model, "the checkpoint folder to be trained: its tokenizer and template")
      ->required();
  add_data_flags(*command, flags->data);
  command->add_option("--errors", flags->data.options.max_errors, "show at most N bad lines")->capture_default_str();
  add_hold_out_flags(*command, flags->hold_out, true);
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
  add_hold_out_flags(*command, flags->hold_out, true);
  command->add_option("--seed", flags->seed, "another seed holds out other groups")->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return split(*flags); }; });
}

void add_dedupe(CLI::App& data, Action& action) {
  auto flags = std::make_shared<DedupeFlags>();
  CLI::App* command = data.add_subcommand("dedupe", "Leave out repetitions of conversations");
  command->footer(
      "Of the records with the same messages and tools the first stays, as it is, whatever their other keys say. "
      "--near\n"
      "leaves out what says nearly the same, too: the share of word triples in common, system prompts aside.\n\n"
      "  nibble data dedupe chats.jsonl --output unique.jsonl\n"
      "  nibble data dedupe chats.jsonl --near 0.8 --output unique.jsonl");
  command->add_option("FILE", flags->file, "conversations as JSONL")->required();
  command->add_option("--output", flags->output, "the new file")->required();
  add_hold_out_flags(*command, flags->hold_out, true);
  command->add_option("--near", flags->near, "similarity from which two are one (0 = exact repetitions only)")
      ->check(CLI::Range(0.0, 1.0));
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return dedupe(*flags); }; });
}

void add_stats(CLI::App& data, Action& action) {
  auto flags = std::make_shared<StatsFlags>();
  CLI::App* command = data.add_subcommand("stats", "What conversations hold: turns, calls, lengths, repetitions");
  command->footer(
      "Lines that training would refuse are counted and left out. Lengths are those of the model's template and\n"
      "tokenizer, or estimated at four characters a token.\n\n"
      "  nibble data stats chats.jsonl --model models/tiny-voice");
  command->add_option("FILE", flags->file, "conversations as JSONL")->required();
  add_hold_out_flags(*command, flags->hold_out, true);
  command->add_option("--model", flags->model, "count tokens as this checkpoint does");
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return stats(*flags); }; });
}

}  // namespace

void add_data(CLI::App& app, Action& action) {
  CLI::App* data = app.add_subcommand("data", "Check, split and clean training data");
  data->footer(
      "  nibble data check chats.jsonl --model DIR          what is wrong, and what would be trained\n"
      "  nibble data split chats.jsonl --output data/       training and validation without a common group\n"
      "  nibble data dedupe chats.jsonl --output new.jsonl  without repetitions\n"
      "  nibble data stats chats.jsonl                      turns, calls, lengths");
  data->require_subcommand(1);
  add_check(*data, action);
  add_split(*data, action);
  add_dedupe(*data, action);
  add_stats(*data, action);
}

}  // namespace nibble::cli
