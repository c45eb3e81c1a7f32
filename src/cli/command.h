// A subcommand registers its flags and leaves an action; main() runs the one that was chosen.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <memory>

#include "base/result.h"
#include "checkpoint/activations.h"
#include "checkpoint/load.h"
#include "tensor/context.h"
#include "text/chat_template.h"
#include "text/prompt_lock.h"
#include "text/tokenizer.h"

namespace nibble::cli {

/// Exit codes: 0 done, 1 a gate failed, 2 bad input or a failing machine, 130 stopped by Ctrl-C.
using Action = std::function<Result<int>()>;

void add_bench(CLI::App& app, Action& action);
void add_card(CLI::App& app, Action& action);
void add_chat(CLI::App& app, Action& action);
void add_convert(CLI::App& app, Action& action);
void add_converse(CLI::App& app, Action& action);
void add_data(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_gate(CLI::App& app, Action& action);
void add_generate(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_quantize(CLI::App& app, Action& action);
void add_runs(CLI::App& app, Action& action);
void add_serve(CLI::App& app, Action& action);
void add_train(CLI::App& app, Action& action);

/// What every command that runs a model opens: weights, tokenizer and chat template of one folder or GGUF file.
struct OpenModel {
  std::shared_ptr<checkpoint::LoadedModel> model;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::shared_ptr<const text::ChatTemplate> chat_template;
};
/// With `adapter`, a folder that PEFT or Unsloth saved, merged into the weights in f32 before anything else. `act` is
/// what --act said; empty: as the checkpoint says.
Result<OpenModel> open_model(const Path& dir, const Path& adapter = {}, const std::string& act = {},
                             const checkpoint::LoadOptions& options = {});
/// The weights alone. options.pool does the merging, too; without one a pool of all cores.
Result<checkpoint::LoadedModel> load_model(const Path& dir, const Path& adapter,
                                           const checkpoint::LoadOptions& options = {});
/// Sets what --act said, and the model's summary with it.
Status set_activations(checkpoint::LoadedModel& model, const std::string& act);
/// The flag.
void add_act_flag(CLI::App& command, std::string& act, const std::string& of = "the model");
/// The flag that names an adapter.
void add_adapter_flag(CLI::App& command, Path& adapter, const std::string& flag = "--adapter",
                      const std::string& of = "the model");

/// What the model of a folder was trained to be asked with; a lock that cannot be read is warned of and left out.
std::optional<text::PromptLock> prompt_lock_of(const Path& dir);

/// Largest input of every linear over the first `samples` conversations of a chat JSONL (0 = all), with a progress bar.
Result<std::map<std::string, float>> calibrated_amax(Context& cx, const OpenModel& open, const Path& chats,
                                                     int64_t samples);

/// The last part of a folder's path: what a model is called where no name was given.
std::string folder_name(const Path& dir);

}  // namespace nibble::cli
