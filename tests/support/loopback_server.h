// A small HTTP server for tests: plain blocking sockets on 127.0.0.1, a thread per connection, replies by script.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/check.h"

namespace nibble::test {

struct LoopbackRequest {
  std::string head;  // request line and header lines
  std::string body;
};

/// One client's socket. The handler writes raw bytes, so a test can send anything, complete or not.
class LoopbackConnection {
 public:
  explicit LoopbackConnection(int fd) : fd_(fd) {}

  /// False once the client has gone.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  void reply(int status, std::string_view body, std::string_view extra_headers = "") {
    send("HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n" + std::string(extra_headers) + "\r\n" + std::string(body));
  }
  void close() { ::shutdown(fd_, SHUT_RDWR); }

  /// Blocks until the client closes or sends something, or the server shuts down.
  void wait_for_client() {
    char byte;
    (void)!::recv(fd_, &byte, 1, MSG_PEEK);
  }

 private:
  int fd_;
};

class LoopbackServer {
 public:
  using Handler = std::function<void(const LoopbackRequest&, LoopbackConnection&)>;

  /// Serves from construction to destruction. The handler runs on several threads when there are several clients.
  explicit LoopbackServer(Handler handler) : handler_(std::move(handler)), fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    NIBBLE_CHECK(::bind(fd_, raw, size) == 0 && ::listen(fd_, 64) == 0 && ::getsockname(fd_, raw, &size) == 0);
    port_ = ntohs(address.sin_port);
    threads_.emplace_back([this] { accept_all(); });
  }
  ~LoopbackServer() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    ::shutdown(fd_, SHUT_RDWR);
    threads_[0].join();  // after it, threads_ no longer grows
    for (size_t i = 1; i < threads_.size(); ++i) threads_[i].join();
    for (const int fd : open_) ::close(fd);
    ::close(fd_);
  }

  std::string url(std::string_view path = "") const {
    return "http://127.0.0.1:" + std::to_string(port_) + std::string(path);
  }
  int connections() const { return connections_; }
  int requests() const { return requests_; }

 private:
  void accept_all() {
    for (int fd; (fd = ::accept(fd_, nullptr, nullptr)) >= 0;) {
      std::lock_guard lock(mutex_);
      ++connections_;
      open_.push_back(fd);
      if (stopping_) ::shutdown(fd, SHUT_RDWR);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }

  void serve(int fd) {
    LoopbackConnection connection(fd);
    std::string buffer;
    for (LoopbackRequest request; read_request(fd, buffer, request); request = {}) {
      ++requests_;
      handler_(request, connection);
    }
    connection.close();
  }

  static bool read_more(int fd, std::string& buffer) {
    char bytes[4096];
    const ssize_t n = ::recv(fd, bytes, sizeof bytes, 0);
    if (n > 0) buffer.append(bytes, static_cast<size_t>(n));
    return n > 0;
  }

  static bool read_request(int fd, std::string& buffer, LoopbackRequest& request) {
    size_t end;
    while ((end = buffer.find("\r\n\r\n")) == std::string::npos) {
      if (!read_more(fd, buffer)) return false;
    }
    request.head = buffer.substr(0, end + 2);
    buffer.erase(0, end + 4);
    const size_t length = request.head.find("Content-Length: ");
    const size_t size = length == std::string::npos ? 0 : std::stoul(request.head.substr(length + 16));
    while (buffer.size() < size) {
      if (!read_more(fd, buffer)) return false;
    }
    request.body = buffer.substr(0, size);
    buffer.erase(0, size);
    return true;
  }

  Handler handler_;
  int fd_;
  int port_ = 0;
  std::atomic<int> connections_{0}, requests_{0};
  std::mutex mutex_;  // over open_, stopping_ and the growth of threads_
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

}  // namespace nibble::test
