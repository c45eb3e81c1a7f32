#include "serve/http_server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "serve/http_connection.h"

namespace nibble::serve {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kPause = std::chrono::milliseconds(20);  // before accepting again, when out of connections or files
constexpr auto kPoll = std::chrono::milliseconds(2);    // while stop() waits for requests to end
constexpr double kSettleSeconds = 5;

class LoopIoThread : public IoThread {
 public:
  explicit LoopIoThread(asio::io_context& io) : io_(io) {}

  void post(std::function<void()> f) override { asio::post(io_, std::move(f)); }

  void after(double seconds, std::function<void()> f) override {
    const auto delay = std::chrono::microseconds(static_cast<int64_t>(seconds * 1e6));
    // The timer is made on the io thread, where alone it may be touched.
    asio::post(io_, [this, delay, f = std::move(f)]() mutable {
      auto timer = std::make_shared<asio::steady_timer>(io_, delay);
      timer->async_wait([timer, f = std::move(f)](error_code ec) {
        if (!ec) f();
      });
    });
  }

 private:
  asio::io_context& io_;
};

}  // namespace

struct HttpServer::Core {
  explicit Core(Options options)
      : context(std::move(options)), io_thread(context.io), acceptor(context.io), pause(context.io) {}

  asio::awaitable<void> accept();

  ConnectionContext context;
  LoopIoThread io_thread;
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  std::thread thread;
  uint16_t port = 0;
};

asio::awaitable<void> HttpServer::Core::accept() {
  const auto limit = static_cast<size_t>(context.options.limits.connections);
  while (acceptor.is_open()) {
    if (context.connections.size() < limit) {
      tcp::socket socket(context.io);
      const auto [ec] = co_await acceptor.async_accept(socket, asio::as_tuple(asio::use_awaitable));
      if (!ec) {
        std::make_shared<Connection>(context, std::move(socket))->start();
        continue;
      }
      if (!acceptor.is_open()) co_return;
      spdlog::warn("http: accept: {}", ec.message());
    }
    pause.expires_after(kPause);
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(Options options, Admit admit, Handler handler) {
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  error_code ec;
  const auto address = asio::ip::make_address(host, ec);
  if (ec) return invalid_argument("host: expected an IP address or localhost, got \"{}\"", options.host);

  auto core = std::make_shared<Core>(std::move(options));
  core->context.admit = std::move(admit);
  core->context.handler = std::move(handler);
  // Shares ownership with the core: who holds this holds the loop it posts to.
  core->context.io_thread = std::shared_ptr<IoThread>(core, &core->io_thread);

  const tcp::endpoint endpoint(address, core->context.options.port);
  auto& acceptor = core->acceptor;
  acceptor.open(endpoint.protocol(), ec);
  if (!ec) acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) {
    return io("{}:{}: expected to listen there, got \"{}\"", host, endpoint.port(), ec.message())
        .with_hint("another server may hold the port: choose one with --port");
  }
  core->port = acceptor.local_endpoint().port();

  asio::co_spawn(core->context.io, core->accept(), asio::detached);
  core->thread = std::thread([raw = core.get()] {
    const auto work = asio::make_work_guard(raw->context.io);
    raw->context.io.run();
  });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(core)));
}

HttpServer::HttpServer(std::shared_ptr<Core> core) : core_(std::move(core)) {}

HttpServer::~HttpServer() {
  stop(0);
}

uint16_t HttpServer::port() const {
  return core_->port;
}

void HttpServer::stop(double drain_seconds, const std::function<bool()>& settled) {
  if (!core_->thread.joinable()) return;
  auto& context = core_->context;
  // Copies: cutting a connection may end it and take it out of the set.
  const auto each_connection = [&context](void (Connection::*act)()) {
    for (Connection* connection : std::set<Connection*>(context.connections)) (connection->*act)();
  };
  const auto wait = [](double seconds, const std::function<bool()>& done) {
    const Stopwatch watch;
    while (!done() && watch.seconds() < seconds) std::this_thread::sleep_for(kPoll);
  };
  asio::post(context.io, [this, each_connection, &context] {
    context.draining = true;
    error_code ignored;
    core_->acceptor.close(ignored);
    core_->pause.cancel();
    each_connection(&Connection::cut_if_idle);
  });
  wait(drain_seconds, [&context] { return context.active == 0; });
  asio::post(context.io, [each_connection] { each_connection(&Connection::cut); });
  context.workers.join();
  if (settled) wait(kSettleSeconds, settled);
  context.io.stop();
  core_->thread.join();
}

}  // namespace nibble::serve
