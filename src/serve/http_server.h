// HttpServer: HTTP/1.1 over TCP for a trusted number of clients. One io thread does all socket work; handlers run on
// a few worker threads, where they may compute for long; no connection has a thread of its own.
//
// While a request is being answered a read is always pending, so a peer that goes away (FIN or RST) is noticed at
// once and Exchange::on_close is called. A half-closed connection counts as closed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "serve/http_types.h"

namespace nibble::serve {

struct HttpLimits {
  size_t header_bytes = size_t{16} << 10;  // beyond: 431
  size_t body_bytes = size_t{8} << 20;     // beyond: 413
  double header_s = 10;                    // from the first byte of a request to the end of its headers, else cut
  double body_s = 30;                      // for the whole body, else cut
  double write_s = 30;                     // without the peer taking a byte, else cut
  double idle_s = 3600;                    // between requests; clients' pools expect kept connections to stay
  int connections = 1024;                  // more wait in the kernel's backlog
};

class HttpServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";  // an IP address or "localhost"
    uint16_t port = 0;               // 0: the system picks one
    int workers = 2;
    HttpLimits limits = {};
  };

  /// Called on the io thread when headers are complete and before the body is read; a response refuses the request.
  using Admit = std::function<std::optional<HttpResponse>(const HttpRequest&)>;
  /// Called on a worker. What it throws becomes a 500.
  using Handler = std::function<void(std::shared_ptr<Exchange>)>;

  /// Binds and starts to serve. `io` when the address cannot be bound, `invalid_argument` when it is no address.
  static Result<std::unique_ptr<HttpServer>> start(Options options, Admit admit, Handler handler);

  /// As stop(0).
  ~HttpServer();

  uint16_t port() const;

  /// Stops accepting and closes idle connections; requests in progress get `drain_seconds` to finish and are then
  /// closed (their on_close is called). `settled` is asked until it says that nobody works on an exchange any more,
  /// for at most five seconds. Returns when all threads have ended.
  void stop(double drain_seconds, const std::function<bool()>& settled = {});

 private:
  struct Core;
  explicit HttpServer(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;
};

}  // namespace nibble::serve
