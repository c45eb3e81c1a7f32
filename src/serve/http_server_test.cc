#include "serve/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "net/http_client.h"
#include "serve/errors.h"
#include "tests/support/raw_client.h"

namespace nibble::serve {
namespace {

// A server whose paths each do one thing: /echo, /throw, /stream (answers only when told to), /flood, /late.
class HttpServerTest : public ::testing::Test {
 protected:
  void start(HttpLimits limits = {}) {
    auto server = HttpServer::start(
        {.limits = limits},
        [](const HttpRequest& request) -> std::optional<HttpResponse> {
          if (request.path == "/forbidden") return HttpResponse{403, {}, "no"};
          return std::nullopt;
        },
        [this](std::shared_ptr<Exchange> exchange) { handle(std::move(exchange)); });
    ASSERT_TRUE(server.ok()) << server.status().text();
    server_ = std::move(*server);
  }

  void handle(std::shared_ptr<Exchange> exchange) {
    const std::string& path = exchange->request().path;
    if (path == "/throw") throw std::runtime_error("a bug");
    if (path == "/echo") return exchange->respond({200, {{"X-Test", "1"}}, exchange->request().body});
    exchange->on_close([this] { closed_at_ = now_s(); });
    if (path == "/late") return keep(exchange);
    exchange->begin({200, {{"Content-Type", "text/plain"}}, ""});
    if (path == "/flood") {
      exchange->on_drained([this] { ++drained_; });
      exchange->write(std::string(size_t{32} << 20, 'x'));
      return keep(exchange);
    }
    exchange->write("one ");
    exchange->write("two");
    exchange->end();
  }

  void keep(std::shared_ptr<Exchange> exchange) {
    const std::lock_guard lock(mutex_);
    kept_.push_back(std::move(exchange));
  }
  bool kept(size_t n) {
    const std::lock_guard lock(mutex_);
    return kept_.size() >= n;
  }
  std::string url(const std::string& path) const {
    return "http://127.0.0.1:" + std::to_string(server_->port()) + path;
  }

  std::mutex mutex_;
  std::vector<std::shared_ptr<Exchange>> kept_;
  std::atomic<double> closed_at_{0};
  std::atomic<int> drained_{0};
  std::unique_ptr<HttpServer> server_;  // last: its end joins the threads that use what stands above
};

TEST_F(HttpServerTest, AnswersOnOneKeptConnection) {
  start();
  RawClient client(server_->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(raw_request("POST", "/echo", "hello", "X-Request-Id: abc-1\r\n")));
    const std::string reply = client.read_until("hello");
    EXPECT_EQ(reply.find("HTTP/1.1 200 OK\r\n"), 0u) << reply;
    EXPECT_NE(reply.find("Content-Length: 5\r\n"), std::string::npos);
    EXPECT_NE(reply.find("X-Request-Id: abc-1\r\n"), std::string::npos);
    EXPECT_NE(reply.find("Connection: keep-alive\r\n"), std::string::npos);
  }
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  start();
  RawClient client(server_->port());
  ASSERT_TRUE(client.send(raw_request("POST", "/echo", "first") + raw_request("POST", "/echo", "second")));
  const std::string replies = client.read_until("second");
  EXPECT_LT(replies.find("first"), replies.find("second"));
}

TEST_F(HttpServerTest, StreamsInChunks) {
  start();
  net::HttpClient client;
  const auto reply = client.get(url("/stream"));
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_EQ(reply->body, "one two");
  ASSERT_NE(reply->header("transfer-encoding"), nullptr);
  ASSERT_NE(reply->header("x-request-id"), nullptr);
  EXPECT_EQ(reply->header("x-request-id")->size(), 28u);
}

TEST_F(HttpServerTest, SpeaksHttp10WithoutChunks) {
  start();
  RawClient client(server_->port());
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  const std::string reply = client.read_to_end();
  EXPECT_EQ(reply.substr(reply.find("\r\n\r\n") + 4), "one two");
  EXPECT_NE(reply.find("Connection: close"), std::string::npos);
}

TEST_F(HttpServerTest, SendsNoBodyToHead) {
  start();
  RawClient client(server_->port());
  client.send(raw_request("HEAD", "/echo") + raw_request("POST", "/echo", "next"));
  const std::string replies = client.read_until("next");
  EXPECT_NE(replies.find("\r\n\r\nHTTP/1.1 200 OK"), std::string::npos) << replies;
}

TEST_F(HttpServerTest, AsksForTheBodyWhenAClientWaits) {
  start();
  RawClient client(server_->port());
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_NE(client.read_until("100 Continue\r\n\r\n").find("100"), std::string::npos);
  client.send("body");
  EXPECT_NE(client.read_until("body").find("200 OK"), std::string::npos);
}

TEST_F(HttpServerTest, TurnsAnExceptionInto500) {
  start();
  net::HttpClient client;
  const auto reply = client.get(url("/throw"));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->status, 500);
  EXPECT_EQ(reply->body.find("a bug"), std::string::npos);
  EXPECT_EQ(client.get(url("/echo"))->status, 200);
}

TEST_F(HttpServerTest, RefusesWhatIsTooLargeOrMalformed) {
  start({.header_bytes = 2048, .body_bytes = 1000});
  const std::string big(1001, 'x');
  const struct {
    std::string request;
    const char* status;
  } cases[] = {
      {raw_request("POST", "/echo", big), "413"},
      {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + big + "\r\n0\r\n\r\n", "413"},
      {"GET /echo HTTP/1.1\r\nHost: x\r\nX-Big: " + std::string(4000, 'y') + "\r\n\r\n", "431"},
      {"nonsense\r\n\r\n", "400"},
      {"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400"},
      {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
      {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
      {"GET /echo HTTP/9.9\r\nHost: x\r\n\r\n", "400"},
      {raw_request("POST", "/forbidden", "some body"), "403"},
  };
  for (const auto& c : cases) {
    RawClient client(server_->port());
    client.send(c.request);
    const std::string reply = client.read_to_end(1);
    EXPECT_EQ(reply.substr(0, 12), std::string("HTTP/1.1 ") + c.status) << c.request.substr(0, 60);
    EXPECT_NE(reply.find("Connection: close"), std::string::npos);
  }
}

TEST_F(HttpServerTest, ARefusalWithoutBodyKeepsTheConnection) {
  start();
  RawClient client(server_->port());
  client.send(raw_request("GET", "/forbidden"));
  EXPECT_NE(client.read_until("no").find("403"), std::string::npos);
  client.send(raw_request("POST", "/echo", "again"));
  EXPECT_NE(client.read_until("again").find("200"), std::string::npos);
}

TEST_F(HttpServerTest, NoticesAPeerThatLeaves) {
  start();
  void (*const ways[])(RawClient&) = {[](RawClient& c) { c.close(); }, [](RawClient& c) { c.reset(); },
                                      [](RawClient& c) { c.half_close(); }};
  size_t n = 0;
  for (const auto leave : ways) {
    RawClient client(server_->port());
    client.send(raw_request("GET", "/late"));
    ASSERT_TRUE(comes_true([&] { return kept(n + 1); }));
    closed_at_ = 0;
    const double left_at = now_s();
    leave(client);
    ASSERT_TRUE(comes_true([&] { return closed_at_ > 0; }, 1));
    EXPECT_LT(closed_at_ - left_at, 0.1);
    EXPECT_TRUE(kept_[n]->closed());
    kept_[n]->respond({200, {}, "too late"});
    ++n;
  }
}

TEST_F(HttpServerTest, CutsAPeerThatReadsNothing) {
  start({.write_s = 0.2});
  RawClient client(server_->port(), 4096);
  client.send(raw_request("GET", "/flood"));
  ASSERT_TRUE(comes_true([&] { return kept(1); }));
  EXPECT_GT(kept_[0]->unsent(), Exchange::kBufferBytes);
  EXPECT_TRUE(comes_true([&] { return closed_at_ > 0; }, 3));
  EXPECT_LE(drained_, 1);  // the head alone may have gone out before
}

TEST_F(HttpServerTest, TellsWhenAllIsSent) {
  start();
  RawClient client(server_->port());
  client.send(raw_request("GET", "/flood"));
  size_t total = 0;
  while (total < (size_t{32} << 20)) {
    const std::string got = client.read_until([](const std::string& s) { return !s.empty(); });
    ASSERT_FALSE(got.empty());
    total += got.size();
  }
  EXPECT_TRUE(comes_true([&] { return drained_ >= 1 && kept_[0]->unsent() == 0; }));
}

TEST_F(HttpServerTest, CutsSlowHeadersAndBodiesAndIdleConnections) {
  start({.header_s = 0.2, .body_s = 0.2, .idle_s = 0.4});
  for (const std::string& start_of_request :
       {std::string("GET /ec"), std::string("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"),
        std::string()}) {
    RawClient client(server_->port());
    client.send(start_of_request);
    EXPECT_TRUE(client.closes_within(1)) << start_of_request;
  }
}

TEST_F(HttpServerTest, AcceptsAgainWhenAConnectionIsFree) {
  start({.connections = 2});
  RawClient first(server_->port());
  auto second = std::make_unique<RawClient>(server_->port());
  for (RawClient* client : {&first, second.get()}) {
    client->send(raw_request("POST", "/echo", "hi"));
    ASSERT_NE(client->read_until("hi").find("200"), std::string::npos);
  }
  RawClient third(server_->port());
  third.send(raw_request("POST", "/echo", "hi"));
  EXPECT_EQ(third.read_until("hi", 0.15), "");
  second.reset();
  EXPECT_NE(third.read_until("hi").find("200"), std::string::npos);
}

TEST_F(HttpServerTest, StopDrainsWhatRunsAndClosesWhatIdles) {
  start();
  RawClient idle(server_->port()), running(server_->port());
  idle.send(raw_request("POST", "/echo", "hi"));
  idle.read_until("hi");
  running.send(raw_request("GET", "/late"));
  ASSERT_TRUE(comes_true([&] { return kept(1); }));
  std::thread stopper([&] { server_->stop(10); });
  EXPECT_TRUE(idle.closes_within(1));
  EXPECT_FALSE(RawClient(server_->port()).connected());
  kept_[0]->respond({200, {}, "finished"});
  EXPECT_NE(running.read_until("finished").find("200"), std::string::npos);
  stopper.join();
  EXPECT_EQ(closed_at_, 0);
}

TEST_F(HttpServerTest, StopCancelsWhatDoesNotEndInTime) {
  start();
  RawClient client(server_->port());
  client.send(raw_request("GET", "/late"));
  ASSERT_TRUE(comes_true([&] { return kept(1); }));
  server_->stop(0.05, [&] { return closed_at_ > 0; });
  EXPECT_GT(closed_at_, 0);
  EXPECT_TRUE(client.closes_within(1));
  server_.reset();
  kept_[0]->post([] { FAIL() << "the server is gone"; });
  kept_[0]->respond({200, {}, ""});
}

TEST(HttpServer, SaysWhyItCannotStart) {
  const auto nothing = [](std::shared_ptr<Exchange>) {};
  const auto all = [](const HttpRequest&) { return std::optional<HttpResponse>(); };
  EXPECT_EQ(HttpServer::start({.host = "nowhere"}, all, nothing).status().message(),
            "host: expected an IP address or localhost, got \"nowhere\"");
  const auto first = HttpServer::start({}, all, nothing);
  ASSERT_TRUE(first.ok());
  const auto second = HttpServer::start({.port = (*first)->port()}, all, nothing);
  EXPECT_EQ(second.status().code(), Code::io);
}

}  // namespace
}  // namespace nibble::serve
