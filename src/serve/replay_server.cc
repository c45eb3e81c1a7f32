#include "serve/replay_server.h"

namespace nibble::serve {

Result<std::unique_ptr<Server>> start_replay_server(std::string_view script, ServeOptions options) {
  NIBBLE_TRY(parsed, engine::parse_replay(script, "script"));
  NIBBLE_TRY(model, engine::open_replay(std::move(parsed)));
  options.port = 0;
  if (options.model_id == ServeOptions().model_id) options.model_id = kReplayModelId;
  return Server::start(std::move(options), model.engine, model.tokenizer, model.chat_template);
}

}  // namespace nibble::serve
