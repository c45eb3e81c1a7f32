#include "gate/card.h"
#include "cli/command.h"
#include "cli/terminal.h"

namespace nibble::cli {
namespace {

struct Flags {
  std::vector<Path> runs;
  gate::CardOptions options;
  Path output;
  bool json = false;
};

Result<int> run(const Flags& flags) {
  NIBBLE_TRY(card, gate::make_card(flags.runs, flags.options));
  if (flags.json) {
    Json values = Json::array();
    for (const gate::CardValue& value : card.values) {
      values.push_back({{"text", value.text}, {"file", value.file}, {"pointer", value.pointer}});
    }
    print_json({{"markdown", card.markdown}, {"values", std::move(values)}});
  } else if (flags.output.empty()) {
    fmt::print("{}", card.markdown);
  }
  if (flags.output.empty()) return 0;
  NIBBLE_RETURN_IF_ERROR(write_file(flags.output, card.markdown));
  return 0;
}

}  // namespace

void add_card(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("card", "Write a model card from the files of runs, and from nothing else");
  command->footer(
      "Names folders of gate, converse, quantize and train, and JSON files of bench, eval and generate. Several gate "
      "runs\nstand beside each other, in the order given: the original, the rounded, the healed. What no run measured "
      "is\n"
      "called \"not measured\".\n\n"
      "  nibble card runs/bf16 runs/max runs/healed out/nvfp4 --title \"Annie 9B NVFP4\" --output README.md");
  command->add_option("RUN", flags->runs, "folders and files of runs")->required();
  command->add_option("--title", flags->options.title, "the card's heading")->capture_default_str();
  command->add_option("--base-model", flags->options.base_model, "what was fine-tuned");
  command->add_option("--license", flags->options.license, "the model's licence")->capture_default_str();
  command->add_option("--language", flags->options.language, "of the replies")->capture_default_str();
  command->add_option("--description", flags->options.description, "a paragraph of your own");
  command->add_option("--citation", flags->options.citation, "how to cite the model (default: by its title)");
  command->add_option("--output", flags->output, "the file (default: print it)");
  command->add_flag("--json", flags->json, "print the card and where each of its values stands");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli
