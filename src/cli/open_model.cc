#include "base/log.h"
#include "checkpoint/adapter.h"
#include "checkpoint/gguf_text.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "quantize/calibrate.h"
#include "text/chat_data.h"

namespace nibble::cli {

Result<checkpoint::LoadedModel> load_model(const Path& dir, const Path& folder,
                                           const checkpoint::LoadOptions& options) {
  if (folder.empty()) return checkpoint::load_checkpoint(dir, options);
  NIBBLE_TRY(adapter, checkpoint::Adapter::open(folder));
  NIBBLE_TRY(model, checkpoint::load_checkpoint(dir, options));
  std::optional<ThreadPool> own;
  ThreadPool& pool = options.pool != nullptr ? *options.pool : own.emplace();
  NIBBLE_RETURN_IF_ERROR(checkpoint::merge_adapter(pool, model, adapter));
  return std::move(model);
}

Status set_activations(checkpoint::LoadedModel& model, const std::string& act) {
  if (act.empty()) return {};
  NIBBLE_RETURN_IF_ERROR(checkpoint::set_activations(model.weights, *checkpoint::activations_named(act)));
  model.format.activations = checkpoint::activations_of(model.weights);
  return {};
}

Result<OpenModel> open_model(const Path& dir, const Path& adapter, const std::string& act,
                             const checkpoint::LoadOptions& options) {
  OpenModel open;
  std::optional<ThreadPool> own;
  checkpoint::LoadOptions shared = options;
  if (shared.pool == nullptr) shared.pool = &own.emplace();
  NIBBLE_TRY(model, load_model(dir, adapter, shared));
  NIBBLE_RETURN_IF_ERROR(set_activations(model, act));
  open.model = std::make_shared<checkpoint::LoadedModel>(std::move(model));
  if (is_gguf(dir)) {
    NIBBLE_TRY(text, checkpoint::read_gguf_text(dir));
    if (text.nfc)
      spdlog::info("{}: text is composed to NFC, as the model was trained; llama.cpp does not", dir.string());
    open.tokenizer = std::make_shared<const text::Tokenizer>(std::move(text.tokenizer));
    open.chat_template = std::make_shared<const text::ChatTemplate>(std::move(text.chat_template));
    return open;
  }
  NIBBLE_TRY(tokenizer, text::Tokenizer::load(dir));
  open.tokenizer = std::make_shared<const text::Tokenizer>(std::move(tokenizer));
  NIBBLE_TRY(chat_template, text::ChatTemplate::load(dir));
  open.chat_template = std::make_shared<const text::ChatTemplate>(std::move(chat_template));
  return open;
}

std::optional<text::PromptLock> prompt_lock_of(const Path& dir) {
  if (is_gguf(dir)) return {};  // the format has no place for one
  auto lock = text::load_prompt_lock(dir);
  if (lock.ok()) return std::move(*lock);
  spdlog::warn("prompt lock: {}; prompts are not compared with those of training", lock.status().message());
  return {};
}

void add_adapter_flag(CLI::App& command, Path& adapter, const std::string& flag, const std::string& of) {
  command.add_option(flag, adapter, "a LoRA adapter's folder (PEFT, Unsloth), merged into " + of + " first");
}

void add_act_flag(CLI::App& command, std::string& act, const std::string& of) {
  command
      .add_option("--act", act,
                  "inputs of " + of +
                      "'s weights: a16 as they are, a4 in NVFP4 under the checkpoint's scales, a4-token "
                      "under a scale per token (default: as the checkpoint says)")
      ->check(CLI::IsMember({"a16", "a4", "a4-token"}));
}

Result<std::map<std::string, float>> calibrated_amax(Context& cx, const OpenModel& open, const Path& chats,
                                                     int64_t samples) {
  NIBBLE_TRY(ids, text::tokenize_chats(chats, *open.chat_template, *open.tokenizer, samples));
  ProgressBar bar("calibrate");
  NIBBLE_TRY(calibration, quantize::calibrate(cx, open.model->weights, ids, bar.callback()));
  return std::move(calibration.input_amax);
}

std::string folder_name(const Path& dir) {
  std::error_code ignored;
  const Path absolute = std::filesystem::weakly_canonical(dir, ignored);
  return absolute.filename().empty() ? "model" : absolute.filename().string();
}

}  // namespace nibble::cli
