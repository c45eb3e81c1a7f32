// The server that a command plays against: a model of ours on a loopback port, or one that runs somewhere.
#pragma once

#include <memory>
#include <string>

#include "base/file.h"
#include "base/result.h"
#include "gate/chat_endpoint.h"
#include "io/json.h"
#include "serve/server.h"

namespace nibble::cli {

struct PlayedServer {
  std::unique_ptr<serve::Server> own;  // of a local model, else null
  gate::EndpointOptions endpoint;      // url, key and model are set
  Json about = Json::object();         // model, owned_by and, of a local model, format, activations,
                                       // hardware and the hashes of tokenizer.json and the template

  /// Unset where a server of others does not say.
  std::string activations() const;
};

struct ServerFlags {
  Path model;               // a checkpoint folder,
  std::string endpoint;     // or the URL of a server
  std::string served_name;  // the model id to ask for; empty: the first that is listed
  Path api_key_file;
  std::string act;
  bool exact = false;
};

/// Loads and serves the folder, or asks the server for its models. `command` stands before errors: exactly one of
/// model and endpoint must be given.
Result<PlayedServer> open_server(const ServerFlags& flags, const std::string& command);

}  // namespace nibble::cli
