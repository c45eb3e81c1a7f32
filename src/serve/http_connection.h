// One TCP connection of HttpServer: requests one after the other, each read, admitted, handed to a worker, answered.
// Everything here runs on the io thread.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <memory>
#include <set>

#include "serve/http_exchange.h"
#include "serve/http_server.h"

namespace nibble::serve {

class Connection;

/// What the connections of one server share. The loop, and with it every connection, dies with this object.
struct ConnectionContext {
  HttpServer::Options options;
  HttpServer::Admit admit;
  HttpServer::Handler handler;
  std::weak_ptr<IoThread> io_thread;  // what exchanges know of `io`
  std::set<Connection*> connections;  // open ones
  std::atomic<int> active{0};         // connections with a request between its first byte and the end of its answer
  bool draining = false;
  boost::asio::thread_pool workers;
  boost::asio::io_context io{1};  // last: its end ends the connections, which use what stands above

  explicit ConnectionContext(HttpServer::Options o)
      : options(std::move(o)), workers(static_cast<size_t>(options.workers)) {}
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(ConnectionContext& context, boost::asio::ip::tcp::socket socket);
  ~Connection();

  void start();
  /// Closes the socket; what is pending on it fails, and a request in progress is cancelled.
  void cut();
  void cut_if_idle();

 private:
  enum class Next : uint8_t { request, close };
  struct Incoming;

  boost::asio::awaitable<void> run();
  boost::asio::awaitable<Next> serve_one();
  boost::asio::awaitable<bool> first_byte();
  boost::asio::awaitable<Next> refuse(HttpRequest request, HttpResponse response, bool keep_alive);
  boost::asio::awaitable<Next> answer(HttpRequest request, bool keep_alive);
  boost::asio::awaitable<void> send_all(ServerExchange& exchange);
  boost::asio::awaitable<bool> send(std::string_view bytes, ServerExchange* exchange);
  boost::asio::awaitable<void> watch_peer();
  boost::asio::awaitable<void> linger();
  void deadline(double seconds);
  void no_deadline();

  ConnectionContext& context_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer wake_, deadline_;
  uint64_t deadline_generation_ = 0;
  boost::beast::flat_buffer buffer_;
  std::shared_ptr<ServerExchange> exchange_;
  bool idle_ = true;
};

}  // namespace nibble::serve
