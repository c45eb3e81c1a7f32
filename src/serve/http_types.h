// What a handler sees of HTTP: a request that has been read whole, and an Exchange to answer it with. Nothing here
// knows the library underneath, so handlers compile fast and can be tested with an Exchange of the test's own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::serve {

using Headers = std::vector<std::pair<std::string, std::string>>;

/// The first value under `name`, compared without case; empty where there is none.
std::string_view find_header(const Headers& headers, std::string_view name);

struct HttpRequest {
  std::string method;         // as sent: "GET", "POST", …
  std::string path;           // percent-decoded, without the query
  int version = 11;           // 10 or 11
  Headers headers;            // in the order sent
  std::string body;           // whole; at most HttpLimits::body_bytes
  std::string local_address;  // the IP this connection was accepted on, "127.0.0.1" or "::1"
  std::string id;             // X-Request-Id: the client's where it is sane, else made

  std::string_view header(std::string_view name) const { return find_header(headers, name); }
};

struct HttpResponse {
  int status = 200;
  Headers
      headers;  // beside Content-Length, Transfer-Encoding, Connection, Date and X-Request-Id, which the server adds
  std::string body;
};

/// One request and its answer. All methods are safe from any thread and none blocks. The answer is either one
/// respond(), or one begin(), any number of write() and one end(); calls after the end, or after the peer has gone,
/// do nothing.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const HttpRequest& request() const = 0;

  virtual void respond(HttpResponse response) = 0;

  /// Sends status and headers at once; a body of unknown length follows by write().
  virtual void begin(HttpResponse head) = 0;
  virtual void write(std::string bytes) = 0;
  virtual void end() = 0;

  /// Bytes written but not yet taken by the socket. A writer that sees more than kBufferBytes should hold back until
  /// on_drained; a peer that takes nothing for HttpLimits::write_s is cut off.
  virtual size_t unsent() const = 0;

  /// The peer has closed or was cut off before the end of the answer.
  virtual bool closed() const = 0;

  /// Runs `f` on the server's io thread, where all callbacks of one server run, one after the other. `f` is dropped
  /// when the server is gone.
  virtual void post(std::function<void()> f) = 0;
  virtual void after(double seconds, std::function<void()> f) = 0;

  /// `f` is called once on the io thread as soon as closed() becomes true, at once if it already is; never after the
  /// end of the answer. A later `f` takes the place of an earlier one.
  virtual void on_close(std::function<void()> f) = 0;

  /// `f` is called on the io thread each time the socket has taken all that was written. A later `f` takes the place
  /// of an earlier one.
  virtual void on_drained(std::function<void()> f) = 0;

  static constexpr size_t kBufferBytes = size_t{1} << 20;
};

}  // namespace nibble::serve
