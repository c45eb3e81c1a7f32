// Server: the OpenAI API over one engine.
//
// It binds to loopback unless told otherwise, and beyond loopback only with a key. Routes: router.cc. Errors are JSON
// in OpenAI's form, with the status codes of errors.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/file.h"
#include "base/result.h"
#include "engine/engine.h"
#include "serve/serve_options.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::serve {

/// Thread-safe.
class Server {
 public:
  /// Serves from the moment it returns. `invalid_argument` for options that must not be, `io` for an address that
  /// cannot be bound.
  static Result<std::unique_ptr<Server>> start(ServeOptions options, std::shared_ptr<engine::Engine> engine,
                                               std::shared_ptr<const text::Tokenizer> tokenizer,
                                               std::shared_ptr<const text::ChatTemplate> chat_template);
  /// As stop(0).
  ~Server();

  uint16_t port() const;

  /// Refuses what comes from now on, gives requests in progress `drain_seconds` to end, cancels the rest. Returns when
  /// nothing runs any more.
  void stop(double drain_seconds);

  /// Returns when stop() has ended, whoever called it.
  void wait();

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// The first line of a key file, without white space around it; `invalid_argument` if it is empty or beyond 512 bytes.
Result<std::string> read_api_key(const Path& file);

}  // namespace nibble::serve
