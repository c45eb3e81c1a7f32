#include "serve/server.h"

#include <condition_variable>
#include <ctime>
#include <mutex>

#include "base/log.h"
#include "serve/guard.h"
#include "serve/http_server.h"
#include "serve/router.h"
#include "serve/service.h"

namespace nibble::serve {

struct Server::State {
  std::shared_ptr<Service> service;
  std::unique_ptr<HttpServer> http;

  std::mutex stopping;  // held by the one stop() that does the work
  std::mutex mutex;     // guards stopped
  std::condition_variable changed;
  bool stopped = false;
};

Result<std::unique_ptr<Server>> Server::start(ServeOptions options, std::shared_ptr<engine::Engine> engine,
                                              std::shared_ptr<const text::Tokenizer> tokenizer,
                                              std::shared_ptr<const text::ChatTemplate> chat_template) {
  if (!is_loopback(options.host) && options.api_key.empty() && !options.insecure) {
    return invalid_argument("host: expected a loopback address for a server without a key, got \"{}\"", options.host)
        .with_hint("give a key with --api-key-file FILE, or --insecure to let anyone in");
  }
  if (options.model_id.empty()) return invalid_argument("model id: expected a name, got none");

  auto state = std::make_unique<State>();
  auto service = std::make_shared<Service>();
  service->options = std::move(options);
  service->engine = std::move(engine);
  service->tokenizer = std::move(tokenizer);
  service->chat_template = std::move(chat_template);
  service->prompt_watch =
      std::make_unique<text::PromptWatch>(service->options.prompt_lock, service->chat_template.get());
  if (const auto difference = service->prompt_watch->at_load()) spdlog::warn("serve: {}", *difference);
  service->created = static_cast<int64_t>(std::time(nullptr));
  service->fingerprint = fmt::format("nibble-{}-{}", NIBBLE_VERSION, service->engine->info().fingerprint);
  state->service = service;

  HttpServer::Options http{.host = service->options.host, .port = service->options.port};
  http.limits = service->options.limits;
  NIBBLE_TRY(server, HttpServer::start(
                         std::move(http),
                         [service, key = KeyCheck(service->options.api_key)](const HttpRequest& request) {
                           return admit(*service, key, request);
                         },
                         [service](const std::shared_ptr<Exchange>& exchange) { dispatch(service, exchange); }));
  state->http = std::move(server);
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() {
  stop(0);
}

uint16_t Server::port() const {
  return state_->http->port();
}

void Server::stop(double drain_seconds) {
  const std::lock_guard only_one(state_->stopping);
  Service& service = *state_->service;
  service.draining = true;
  state_->http->stop(drain_seconds, [&service] { return service.generating == 0; });
  const std::lock_guard lock(state_->mutex);
  state_->stopped = true;
  state_->changed.notify_all();
}

void Server::wait() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [this] { return state_->stopped; });
}

Result<std::string> read_api_key(const Path& file) {
  constexpr size_t kMaxBytes = 512;
  NIBBLE_TRY(text, read_file(file, 64 << 10));
  std::string key = text.substr(0, text.find('\n'));
  constexpr const char* kBlanks = " \t\r";
  key.erase(0, key.find_first_not_of(kBlanks));
  key.erase(key.find_last_not_of(kBlanks) + 1);
  if (key.empty() || key.size() > kMaxBytes) {
    return invalid_argument("api key: expected 1 to {} bytes on the first line, got {} ({})", kMaxBytes, key.size(),
                            file.string());
  }
  return key;
}

}  // namespace nibble::serve
