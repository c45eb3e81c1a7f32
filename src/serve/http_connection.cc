#include "serve/http_connection.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <exception>

#include "base/log.h"
#include "serve/errors.h"
#include "serve/ids.h"
#include "serve/url.h"

namespace nibble::serve {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using namespace asio::experimental::awaitable_operators;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

// A peer may send this much ahead of its turn; more is abuse.
constexpr size_t kAheadBytes = size_t{64} << 10;
// How long a refused peer may go on sending before the socket is closed on it: a close with unread bytes makes the
// kernel send RST, which can destroy the refusal before the peer has read it.
constexpr double kLingerSeconds = 2;

HttpRequest make_request(const http::request_header<>& header, const asio::ip::tcp::socket& socket) {
  HttpRequest request;
  request.method = header.method_string();
  const std::string_view target = header.target();
  request.path = percent_decode(target.substr(0, target.find('?')));
  request.version = static_cast<int>(header.version());
  for (const auto& field : header) request.headers.emplace_back(field.name_string(), field.value());
  const std::string_view id = request.header("X-Request-Id");
  request.id = is_request_id(id) ? std::string(id) : make_id("req-");
  error_code ignored;
  const auto endpoint = socket.local_endpoint(ignored);
  if (!ignored) request.local_address = endpoint.address().to_string();
  return request;
}

int status_of(error_code ec) {
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) return 431;
  if (ec == http::error::body_limit) return 413;
  return 400;
}

bool is_protocol_error(error_code ec) {
  return ec.category() == http::make_error_code(http::error::bad_method).category() &&
         ec != http::error::end_of_stream && ec != http::error::partial_message;
}

asio::awaitable<bool> was_cancelled() {
  co_return (co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none;
}

}  // namespace

struct Connection::Incoming {
  http::request_parser<http::string_body> parser;
};

Connection::Connection(ConnectionContext& context, asio::ip::tcp::socket socket)
    : context_(context),
      socket_(std::move(socket)),
      wake_(context.io),
      deadline_(context.io),
      buffer_(context.options.limits.header_bytes + kAheadBytes) {
  context_.connections.insert(this);
}

Connection::~Connection() {
  context_.connections.erase(this);
  if (!idle_) --context_.active;
}

void Connection::start() {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  asio::co_spawn(
      context_.io, [self = shared_from_this()] { return self->run(); }, asio::detached);
}

void Connection::cut() {
  error_code ignored;
  socket_.close(ignored);
  wake_.cancel();
  if (exchange_) exchange_->finish(false);
}

void Connection::cut_if_idle() {
  if (idle_) cut();
}

void Connection::deadline(double seconds) {
  const uint64_t generation = ++deadline_generation_;
  deadline_.expires_after(std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3)));
  // The generation catches an expiry that was already queued when the deadline moved.
  deadline_.async_wait([this, weak = weak_from_this(), generation](error_code ec) {
    const auto self = weak.lock();
    if (!ec && self && generation == deadline_generation_) cut();
  });
}

void Connection::no_deadline() {
  ++deadline_generation_;
  deadline_.cancel();
}

asio::awaitable<void> Connection::run() {
  try {
    while (socket_.is_open() && co_await serve_one() == Next::request) {
    }
  } catch (const std::exception& e) {
    spdlog::error("http: connection closed after an exception: {}", e.what());
  }
  no_deadline();
  cut();
}

asio::awaitable<bool> Connection::first_byte() {
  if (buffer_.size() == 0) {
    if (context_.draining) co_return false;
    if (!idle_) --context_.active;
    idle_ = true;
    deadline(context_.options.limits.idle_s);
    const auto [ec, n] = co_await socket_.async_read_some(buffer_.prepare(4096), kTuple);
    if (ec) co_return false;
    buffer_.commit(n);
  }
  if (idle_) ++context_.active;
  idle_ = false;
  co_return true;
}

asio::awaitable<Connection::Next> Connection::serve_one() {
  if (!co_await first_byte()) co_return Next::close;
  const HttpLimits& limits = context_.options.limits;
  // On the heap: the parser holds its own buffers and coroutine frames stay small.
  const auto incoming = std::make_unique<Incoming>();
  auto& parser = incoming->parser;
  parser.header_limit(static_cast<uint32_t>(limits.header_bytes));
  parser.body_limit(limits.body_bytes);

  deadline(limits.header_s);
  const auto [header_error, header_bytes] = co_await http::async_read_header(socket_, buffer_, parser, kTuple);
  HttpRequest request = make_request(parser.get(), socket_);
  if (header_error) {
    if (!is_protocol_error(header_error)) co_return Next::close;
    co_return co_await refuse(std::move(request),
                              protocol_error(status_of(header_error), header_error.message()).response(), false);
  }
  const bool keep_alive = parser.get().keep_alive();
  if (context_.draining) co_return co_await refuse(std::move(request), draining().response(), false);
  if (auto refusal = context_.admit(request)) {
    co_return co_await refuse(std::move(request), std::move(*refusal), keep_alive && parser.is_done());
  }
  if (!parser.is_done()) {
    deadline(limits.body_s);
    if (parser.get()[http::field::expect] == "100-continue" &&
        !co_await send("HTTP/1.1 100 Continue\r\n\r\n", nullptr)) {
      co_return Next::close;
    }
    const auto [body_error, body_bytes] = co_await http::async_read(socket_, buffer_, parser, kTuple);
    if (body_error) {
      if (!is_protocol_error(body_error)) co_return Next::close;
      co_return co_await refuse(std::move(request),
                                protocol_error(status_of(body_error), body_error.message()).response(), false);
    }
  }
  no_deadline();
  request.body = std::move(parser.get().body());
  co_return co_await answer(std::move(request), keep_alive);
}

asio::awaitable<Connection::Next> Connection::refuse(HttpRequest request, HttpResponse response, bool keep_alive) {
  ServerExchange exchange(context_.io_thread, std::move(request), keep_alive, [] {});
  exchange.respond(std::move(response));
  if (!co_await send(exchange.take(), nullptr)) co_return Next::close;
  if (keep_alive) co_return Next::request;
  co_await linger();
  co_return Next::close;
}

asio::awaitable<Connection::Next> Connection::answer(HttpRequest request, bool keep_alive) {
  exchange_ =
      std::make_shared<ServerExchange>(context_.io_thread, std::move(request), keep_alive, [weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->wake_.cancel();
      });
  asio::post(context_.workers, [exchange = exchange_, handler = &context_.handler] {
    try {
      (*handler)(exchange);
    } catch (const std::exception& e) {
      spdlog::error("http: {}: {}", exchange->request().path, e.what());
      exchange->respond(internal_error().response());
    }
  });
  co_await (send_all(*exchange_) || watch_peer());
  no_deadline();
  const bool answered = exchange_->complete();
  const bool again = answered && exchange_->keep_alive() && socket_.is_open();
  exchange_->finish(answered);
  exchange_.reset();
  co_return again ? Next::request : Next::close;
}

asio::awaitable<void> Connection::send_all(ServerExchange& exchange) {
  while (!exchange.complete() && !co_await was_cancelled()) {
    const std::string bytes = exchange.take();
    if (bytes.empty()) {
      wake_.expires_at(asio::steady_timer::time_point::max());
      co_await wake_.async_wait(kTuple);
      if (!socket_.is_open()) co_return;
    } else if (!co_await send(bytes, &exchange)) {
      co_return;
    }
  }
}

asio::awaitable<bool> Connection::send(std::string_view bytes, ServerExchange* exchange) {
  while (!bytes.empty()) {
    deadline(context_.options.limits.write_s);
    const auto [ec, n] = co_await socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()), kTuple);
    if (ec || co_await was_cancelled()) co_return false;
    bytes.remove_prefix(n);
    if (exchange) exchange->taken(n);
  }
  no_deadline();
  co_return true;
}

// Ends when the peer is gone. What it sends meanwhile is the start of its next request and stays in the buffer.
asio::awaitable<void> Connection::watch_peer() {
  while (buffer_.size() < kAheadBytes) {
    const auto [ec, n] = co_await socket_.async_read_some(buffer_.prepare(4096), kTuple);
    buffer_.commit(n);
    if (ec || co_await was_cancelled()) co_return;
  }
}

asio::awaitable<void> Connection::linger() {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  deadline(kLingerSeconds);
  for (;;) {
    buffer_.clear();
    const auto [ec, n] = co_await socket_.async_read_some(buffer_.prepare(4096), kTuple);
    if (ec) co_return;
  }
}

}  // namespace nibble::serve
