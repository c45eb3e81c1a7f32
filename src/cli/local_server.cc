#include "cli/local_server.h"

#include "base/machine.h"
#include "base/sha256.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "engine/local_engine.h"
#include "gate/chat_stream.h"

namespace nibble::cli {
namespace {

constexpr uint64_t kMaxTokenizerBytes = uint64_t{256} << 20;

// The model behind its own API on a loopback port: a case takes the way that a user's request takes.
Status serve_model(const ServerFlags& flags, PlayedServer& played) {
  NIBBLE_TRY(open, open_model(flags.model, {}, flags.act));
  NIBBLE_TRY(engine, engine::start_engine(open.model, open.tokenizer,
                                          {.numeric = flags.exact ? Numeric::exact : Numeric::bf16_act}));
  serve::ServeOptions options;
  options.port = 0;
  options.model_id = folder_name(flags.model);
  NIBBLE_TRY(server, serve::Server::start(options, engine, open.tokenizer, open.chat_template));
  played.own = std::move(server);
  played.endpoint.url = fmt::format("http://127.0.0.1:{}", played.own->port());
  const engine::Info& info = engine->info();
  played.about = {{"format", info.format},           {"quant", info.quant},
                  {"activations", info.activations}, {"numeric", info.numeric},
                  {"fingerprint", info.fingerprint}, {"template_hash", sha256_of(open.chat_template->source())},
                  {"hardware", machine_name()}};
  if (const Path file = flags.model / "tokenizer.json"; std::filesystem::is_regular_file(file)) {
    NIBBLE_TRY(tokenizer, read_file(file, kMaxTokenizerBytes));
    played.about["tokenizer_hash"] = sha256_of(tokenizer);
  }
  return {};
}

}  // namespace

std::string PlayedServer::activations() const {
  const Json& word = gate::member(about, "activations");
  return word.is_string() ? word.get<std::string>() : "";
}

Result<PlayedServer> open_server(const ServerFlags& flags, const std::string& command) {
  if (flags.model.empty() == flags.endpoint.empty()) {
    return invalid_argument("{}: expected either --model DIR or --endpoint URL", command);
  }
  if (!flags.act.empty() && flags.model.empty()) {
    return invalid_argument("{}: --act belongs to --model; a served model has what its server was started with",
                            command);
  }
  PlayedServer played;
  played.endpoint.url = flags.endpoint;
  played.endpoint.model = flags.served_name;
  played.endpoint.cancel = interrupt_token();
  if (!flags.api_key_file.empty()) {
    NIBBLE_TRY(key, serve::read_api_key(flags.api_key_file));
    played.endpoint.api_key = key;
  }
  if (!flags.model.empty()) NIBBLE_RETURN_IF_ERROR(serve_model(flags, played));
  gate::ChatEndpoint client(played.endpoint);
  NIBBLE_TRY(body, client.send("/v1/models"));
  NIBBLE_TRY(json, parse_json(body, "/v1/models"));
  const Json& models = gate::member(json, "data");
  if (!models.is_array() || models.empty() || !gate::member(models[0], "id").is_string()) {
    return corrupt("/v1/models: expected a list of models, got {}", body.substr(0, 200));
  }
  if (played.endpoint.model.empty()) played.endpoint.model = models[0]["id"].get<std::string>();
  played.about["model"] = played.endpoint.model;
  played.about["owned_by"] = gate::member(models[0], "owned_by");
  return played;
}

}  // namespace nibble::cli
