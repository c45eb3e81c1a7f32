#include "cli/data_flags.h"

namespace nibble::cli {

void add_data_flags(CLI::App& command, DataFlags& flags) {
  command.add_option("--max-length", flags.options.sample.max_length, "longest sample in tokens (0 = any)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--overflow", flags.overflow, "a longer one: drop it, or leave out its oldest turns: left-turns")
      ->check(CLI::IsMember({"drop", "left-turns"}))
      ->capture_default_str();
  command.add_option("--loss-rows", flags.loss_rows, "rows with a loss: the assistant's, or all")
      ->check(CLI::IsMember({"assistant", "all"}))
      ->capture_default_str();
  command.add_option("--loss-kinds", flags.loss_kinds, "what of an assistant message is trained")
      ->capture_default_str();
  command.add_option("--thinking", flags.thinking, "enable_thinking of the server: off, on, or auto (leave it out)")
      ->check(CLI::IsMember({"off", "on", "auto"}))
      ->capture_default_str();
  command
      .add_option("--think-prefix", flags.think_prefix,
                  "an empty think block: in the server's prompt, or a target to be learned")
      ->check(CLI::IsMember({"prompt", "target"}))
      ->capture_default_str();
  command
      .add_option("--expand-turns", flags.expand_turns,
                  "a sample for every turn: as-needed (the template rewrites history), always, never")
      ->check(CLI::IsMember({"as-needed", "always", "never"}))
      ->capture_default_str();
  command.add_flag("--keep-duplicates", flags.keep_duplicates, "keep exact repetitions");
}

Result<train::DatasetOptions> dataset_options(const DataFlags& flags) {
  train::DatasetOptions options = flags.options;
  train::SampleOptions& o = options.sample;
  NIBBLE_TRY(kinds, train::parse_loss_kinds(flags.loss_kinds));
  o.kinds = kinds;
  o.rows = flags.loss_rows == "all" ? train::LossRows::all : train::LossRows::assistant;
  o.think_prefix = flags.think_prefix == "target" ? train::ThinkPrefix::target : train::ThinkPrefix::prompt;
  o.thinking = flags.thinking == "on"    ? train::Thinking::on
               : flags.thinking == "off" ? train::Thinking::off
                                         : train::Thinking::automatic;
  o.overflow = flags.overflow == "drop" ? train::Overflow::drop : train::Overflow::left_turns;
  o.expand = flags.expand_turns == "always"  ? train::ExpandTurns::always
             : flags.expand_turns == "never" ? train::ExpandTurns::never
                                             : train::ExpandTurns::as_needed;
  options.drop_duplicates = !flags.keep_duplicates;
  return options;
}

}  // namespace nibble::cli
