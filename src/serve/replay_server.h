// A whole server without a model or a folder: the API over a replay script, for tests of whatever speaks to a server.
#pragma once

#include <memory>
#include <string_view>

#include "engine/replay_engine.h"
#include "serve/server.h"

namespace nibble::serve {

/// What the model is called where nothing else was said.
inline constexpr const char* kReplayModelId = "replay";

/// Serves the script (engine/replay_script.h), given as text, with the built-in tokenizer and chat template, on a free
/// port of the loopback interface. options.port is ignored, and a model_id that nobody set becomes "replay".
Result<std::unique_ptr<Server>> start_replay_server(std::string_view script, ServeOptions options = {});

}  // namespace nibble::serve
