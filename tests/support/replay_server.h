// For tests of clients: a real server on loopback that says what a script tells it to.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "serve/replay_server.h"

namespace nibble::test {

/// Serves from construction to destruction. The script is that of engine/replay_script.h: one JSON object a line.
class ReplayServer {
 public:
  explicit ReplayServer(std::string_view script, serve::ServeOptions options = {}) {
    auto server = serve::start_replay_server(script, std::move(options));
    if (!server.ok()) throw std::runtime_error(server.status().text());
    server_ = std::move(*server);
  }

  std::string url(std::string_view path = "") const {
    return "http://127.0.0.1:" + std::to_string(server_->port()) + std::string(path);
  }
  /// As Server::stop.
  void stop(double drain_seconds) const { server_->stop(drain_seconds); }

 private:
  std::unique_ptr<serve::Server> server_;
};

}  // namespace nibble::test
