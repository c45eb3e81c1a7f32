// ServerExchange: the Exchange that a connection drains. Producers append bytes from any thread; the connection, on
// the io thread, takes them and writes them out.
#pragma once

#include <memory>
#include <mutex>

#include "serve/http_types.h"

namespace nibble::serve {

/// How an exchange reaches the io thread; it does nothing once the server is gone.
class IoThread {
 public:
  virtual ~IoThread() = default;
  virtual void post(std::function<void()> f) = 0;
  virtual void after(double seconds, std::function<void()> f) = 0;
};

class ServerExchange : public Exchange, public std::enable_shared_from_this<ServerExchange> {
 public:
  /// `wake` is posted to the io thread when there is something to take. `keep_alive`: what the request asked for.
  ServerExchange(std::weak_ptr<IoThread> io, HttpRequest request, bool keep_alive, std::function<void()> wake);

  const HttpRequest& request() const override { return request_; }
  void respond(HttpResponse response) override;
  void begin(HttpResponse head) override;
  void write(std::string bytes) override;
  void end() override;
  size_t unsent() const override;
  bool closed() const override;
  void post(std::function<void()> f) override;
  void after(double seconds, std::function<void()> f) override;
  void on_close(std::function<void()> f) override;
  void on_drained(std::function<void()> f) override;

  // For the connection, on the io thread.
  std::string take();          // all bytes queued so far
  void taken(size_t n);        // the socket has accepted n of them
  bool complete() const;       // ended, and everything was taken
  bool keep_alive() const;     // valid once complete
  void finish(bool answered);  // the connection lets go: the answer is out, or the peer is gone

 private:
  enum class Phase : uint8_t { waiting, streaming, ended };
  void push(std::string bytes);
  std::string head(const HttpResponse& response, std::string_view framing) const;

  const std::weak_ptr<IoThread> io_;
  const HttpRequest request_;
  const std::function<void()> wake_;

  mutable std::mutex mutex_;  // guards what follows
  Phase phase_ = Phase::waiting;
  bool closed_ = false, keep_alive_ = true, woken_ = false;
  std::string queued_;
  size_t in_flight_ = 0;

  std::function<void()> on_close_, on_drained_;  // io thread only
  bool finished_ = false;                        // io thread only
};

}  // namespace nibble::serve
