#include "checkpoint/adapter.h"
#include "cli/command.h"

namespace nibble::cli {

namespace {

Result<checkpoint::LoadedModel> load_merged(const Path& dir, const Path& folder) {
  NIBBLE_TRY(adapter, checkpoint::Adapter::open(folder));
  NIBBLE_TRY(model, checkpoint::load_checkpoint(dir, {}));
  ThreadPool pool;
  NIBBLE_RETURN_IF_ERROR(checkpoint::merge_adapter(pool, model, adapter));
  return std::move(model);
}

}  // namespace

Result<OpenModel> open_model(const Path& dir, const Path& adapter) {
  OpenModel open;
  NIBBLE_TRY(model, adapter.empty() ? checkpoint::load_checkpoint(dir, {}) : load_merged(dir, adapter));
  open.model = std::make_shared<checkpoint::LoadedModel>(std::move(model));
  NIBBLE_TRY(tokenizer, text::Tokenizer::load(dir));
  open.tokenizer = std::make_shared<const text::Tokenizer>(std::move(tokenizer));
  NIBBLE_TRY(chat_template, text::ChatTemplate::load(dir));
  open.chat_template = std::make_shared<const text::ChatTemplate>(std::move(chat_template));
  return open;
}

void add_adapter_flag(CLI::App& command, Path& adapter, const std::string& flag, const std::string& of) {
  command.add_option(flag, adapter, "a LoRA adapter's folder (PEFT, Unsloth), merged into " + of + " first");
}

std::string folder_name(const Path& dir) {
  std::error_code ignored;
  const Path absolute = std::filesystem::weakly_canonical(dir, ignored);
  return absolute.filename().empty() ? "model" : absolute.filename().string();
}

}  // namespace nibble::cli
