#include "cli/command.h"

namespace nibble::cli {

Result<OpenModel> open_model(const Path& dir) {
  OpenModel open;
  NIBBLE_TRY(model, checkpoint::load_checkpoint(dir, {}));
  open.model = std::make_shared<checkpoint::LoadedModel>(std::move(model));
  NIBBLE_TRY(tokenizer, text::Tokenizer::load(dir));
  open.tokenizer = std::make_shared<const text::Tokenizer>(std::move(tokenizer));
  NIBBLE_TRY(chat_template, text::ChatTemplate::load(dir));
  open.chat_template = std::make_shared<const text::ChatTemplate>(std::move(chat_template));
  return open;
}

std::string folder_name(const Path& dir) {
  std::error_code ignored;
  const Path absolute = std::filesystem::weakly_canonical(dir, ignored);
  return absolute.filename().empty() ? "model" : absolute.filename().string();
}

}  // namespace nibble::cli
