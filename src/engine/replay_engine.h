// The engine that says what a script tells it to: a stand-in for a model, for tests of clients and of the server.
//
// Everything around the model is real: the prompt is rendered and tokenised, the script's texts take the way of
// generated text, and they may be cancelled. The script alone decides what is said and how it ends: sampling, token
// limits, stop tokens and masks of a request have no effect.
#pragma once

#include <memory>

#include "base/file.h"
#include "engine/engine.h"
#include "engine/replay_script.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::engine {

struct ReplayOptions {
  int64_t context = 262'144;  // tokens of prompt and reply
  int64_t max_running = 256;  // requests at once; one more is `unavailable`
};

/// Unlike a model, it serves all requests at once, each with its own clock; none waits. Requests are numbered as they
/// come, those that the script refuses too, and the first entry that matches and is not used up answers:
///   * a chunk is one event: its text, and the ids that the tokenizer has for it. Both count as generated;
///   * "refuse" makes submit() `unavailable`;
///   * "finish": "error" ends the request with Finish::error, `io`;
///   * without an entry submit() is `not_found`, and names the request by its number.
/// Cancelling is noticed within 20 ms, also during a delay. Destruction cancels what runs and returns when it has
/// ended.
std::shared_ptr<Engine> start_replay(ReplayScript script, std::shared_ptr<const text::Tokenizer> tokenizer,
                                     const ReplayOptions& options = {});

/// The engine with what a server needs beside it.
struct ReplayModel {
  std::shared_ptr<Engine> engine;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::shared_ptr<const text::ChatTemplate> chat_template;
};

/// With the tokenizer and the chat template of a checkpoint folder, whose weights are not read. Without a folder they
/// are built in: a tokenizer with one token a byte and Qwen3.5's added tokens, and a ChatML template with Hermes calls
/// that leaves thinking to the reply unless enable_thinking is false.
Result<ReplayModel> open_replay(ReplayScript script, const Path& dir = {}, const ReplayOptions& options = {});

}  // namespace nibble::engine
