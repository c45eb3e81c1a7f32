// A TCP client for tests that speaks whatever bytes it is told to: for what a proper HTTP client would never do.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace nibble::serve {

class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_buffer_bytes = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer_bytes > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }

  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  /// Reads until `enough` says so of everything received since the last call, the peer closes, or time is up.
  template <std::predicate<const std::string&> Enough>
  std::string read_until(Enough enough, double seconds = 5) {
    std::string got;
    const Stopwatch watch;
    while (!enough(got) && watch.seconds() < seconds) {
      pollfd p{fd_, POLLIN, 0};
      if (::poll(&p, 1, 20) <= 0) continue;
      char buffer[65536];
      const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) {
        peer_closed_ = true;
        break;
      }
      got.append(buffer, static_cast<size_t>(n));
    }
    return got;
  }
  std::string read_until(std::string_view text, double seconds = 5) {
    return read_until([text](const std::string& got) { return got.find(text) != std::string::npos; }, seconds);
  }
  std::string read_to_end(double seconds = 5) {
    return read_until([](const std::string&) { return false; }, seconds);
  }

  /// The peer has closed, or closes within that time; bytes before it are thrown away.
  bool closes_within(double seconds) {
    read_to_end(seconds);
    return peer_closed_;
  }

  void half_close() const { ::shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  /// Closes with RST instead of FIN.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }

 private:
  int fd_;
  bool connected_ = false, peer_closed_ = false;
};

/// `METHOD PATH` with a body, as a well-behaved client would send it.
inline std::string raw_request(std::string_view method, std::string_view path, std::string_view body = "",
                               std::string_view more_headers = "") {
  std::string text(method);
  text += " ";
  text += path;
  text += " HTTP/1.1\r\nHost: localhost\r\n";
  text += more_headers;
  if (!body.empty()) {
    text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  text += "\r\n";
  text += body;
  return text;
}

/// Polls a condition that another thread makes true.
template <class Condition>
bool comes_true(Condition condition, double seconds = 5) {
  const Stopwatch watch;
  while (!condition()) {
    if (watch.seconds() > seconds) return false;
    ::usleep(1000);
  }
  return true;
}

}  // namespace nibble::serve
