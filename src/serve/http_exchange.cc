#include "serve/http_exchange.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

namespace nibble::serve {
namespace {

const char* reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Status";
  }
}

}  // namespace

ServerExchange::ServerExchange(std::weak_ptr<IoThread> io, HttpRequest request, bool keep_alive,
                               std::function<void()> wake)
    : io_(std::move(io)), request_(std::move(request)), wake_(std::move(wake)), keep_alive_(keep_alive) {}

std::string ServerExchange::head(const HttpResponse& response, std::string_view framing) const {
  std::string text =
      fmt::format("HTTP/1.1 {} {}\r\nDate: {:%a, %d %b %Y %H:%M:%S} GMT\r\nX-Request-Id: {}\r\n", response.status,
                  reason(response.status), fmt::gmtime(std::time(nullptr)), request_.id);
  for (const auto& [key, value] : response.headers) text += fmt::format("{}: {}\r\n", key, value);
  text += framing;
  text += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return text;
}

void ServerExchange::respond(HttpResponse response) {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::waiting || closed_) return;
  phase_ = Phase::ended;
  const bool bodiless = response.status == 204;
  std::string bytes = head(response, bodiless ? "" : fmt::format("Content-Length: {}\r\n", response.body.size()));
  if (request_.method != "HEAD" && !bodiless) bytes += response.body;
  push(std::move(bytes));
}

void ServerExchange::begin(HttpResponse response) {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::waiting || closed_) return;
  phase_ = Phase::streaming;
  // HTTP/1.0 knows no chunks: there the end of the connection ends the body.
  if (request_.version < 11) keep_alive_ = false;
  push(head(response, request_.version < 11 ? "" : "Transfer-Encoding: chunked\r\n"));
}

void ServerExchange::write(std::string bytes) {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::streaming || closed_ || bytes.empty()) return;
  push(request_.version < 11 ? std::move(bytes) : fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes));
}

void ServerExchange::end() {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::streaming || closed_) return;
  phase_ = Phase::ended;
  push(request_.version < 11 ? "" : "0\r\n\r\n");
}

void ServerExchange::push(std::string bytes) {
  queued_ += bytes;
  if (woken_) return;
  woken_ = true;
  post(wake_);
}

size_t ServerExchange::unsent() const {
  const std::lock_guard lock(mutex_);
  return queued_.size() + in_flight_;
}

bool ServerExchange::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

void ServerExchange::post(std::function<void()> f) {
  if (const auto io = io_.lock()) io->post(std::move(f));
}

void ServerExchange::after(double seconds, std::function<void()> f) {
  if (const auto io = io_.lock()) io->after(seconds, std::move(f));
}

void ServerExchange::on_close(std::function<void()> f) {
  post([self = shared_from_this(), f = std::move(f)]() mutable {
    if (self->closed()) return f();
    if (!self->finished_) self->on_close_ = std::move(f);
  });
}

void ServerExchange::on_drained(std::function<void()> f) {
  post([self = shared_from_this(), f = std::move(f)]() mutable {
    if (!self->finished_) self->on_drained_ = std::move(f);
  });
}

std::string ServerExchange::take() {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  in_flight_ += queued_.size();
  return std::exchange(queued_, {});
}

void ServerExchange::taken(size_t n) {
  bool drained;
  {
    const std::lock_guard lock(mutex_);
    in_flight_ -= n;
    drained = in_flight_ == 0 && queued_.empty();
  }
  if (drained && on_drained_) on_drained_();
}

bool ServerExchange::complete() const {
  const std::lock_guard lock(mutex_);
  return phase_ == Phase::ended && queued_.empty() && in_flight_ == 0;
}

bool ServerExchange::keep_alive() const {
  const std::lock_guard lock(mutex_);
  return keep_alive_;
}

void ServerExchange::finish(bool answered) {
  finished_ = true;
  on_drained_ = nullptr;
  const auto on_close = std::exchange(on_close_, nullptr);
  if (answered) return;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    queued_.clear();
  }
  if (on_close) on_close();
}

}  // namespace nibble::serve
