#include "net/http_client.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/clock.h"
#include "tests/support/loopback_server.h"

namespace nibble::net {
namespace {

using test::LoopbackConnection;
using test::LoopbackRequest;
using test::LoopbackServer;

constexpr std::string_view kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

void echo(const LoopbackRequest& request, LoopbackConnection& connection) {
  connection.reply(200, request.head + request.body, "X-Seen: 1\r\nx-seen: 2\r\n");
}

// An address where nothing listens: bound, then given up.
std::string dead_url() {
  return LoopbackServer(echo).url("/");
}

TEST(HttpClient, PostsAndReadsTheReply) {
  LoopbackServer server(echo);
  HttpClient client;
  HttpOptions options;
  options.bearer = "secret";
  options.headers = {{"X-Mine", "yes"}};
  const std::string body("a\0b", 3);
  const auto reply = client.post(server.url("/v1/x?y=1"), body, options);
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_EQ(reply->status, 200);
  EXPECT_EQ(reply->body.substr(0, 25), "POST /v1/x?y=1 HTTP/1.1\r\n");
  for (const char* line :
       {"Content-Type: application/json\r\n", "Authorization: Bearer secret\r\n", "X-Mine: yes\r\n"}) {
    EXPECT_NE(reply->body.find(line), std::string::npos) << line;
  }
  EXPECT_EQ(reply->body.find("Expect:"), std::string::npos);
  EXPECT_EQ(reply->body.substr(reply->body.size() - 3), body);
  ASSERT_NE(reply->header("x-seen"), nullptr);
  EXPECT_EQ(*reply->header("x-seen"), "1");
  EXPECT_EQ(reply->header("x-none"), nullptr);
}

TEST(HttpClient, PostsAnEmptyBody) {
  LoopbackServer server(echo);
  const auto reply = HttpClient().post(server.url("/"), std::string_view());
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_NE(reply->body.find("Content-Length: 0\r\n"), std::string::npos);
}

TEST(HttpClient, KeepsTheConnectionAndForgetsTheLastRequest) {
  LoopbackServer server(echo);
  HttpClient client;
  ASSERT_TRUE(client.post(server.url("/"), "body").ok());
  for (int i = 0; i < 3; ++i) {
    const auto reply = client.get(server.url("/"));
    ASSERT_TRUE(reply.ok());
    EXPECT_EQ(reply->body.substr(0, 6), "GET / ");
    EXPECT_EQ(reply->body.find("body"), std::string::npos);
  }
  EXPECT_EQ(server.connections(), 1);
}

TEST(HttpClient, AnyStatusIsAnAnswerAndRedirectsAreNotFollowed) {
  LoopbackServer server([](const LoopbackRequest&, LoopbackConnection& connection) {
    connection.reply(302, "moved", "Location: file:///etc/passwd\r\n");
  });
  const auto reply = HttpClient().get(server.url("/"));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->status, 302);
  EXPECT_FALSE(reply->ok());
  EXPECT_EQ(reply->body, "moved");
  EXPECT_EQ(server.requests(), 1);
}

TEST(HttpClient, RefusesOtherSchemesAndHeaderInjection) {
  HttpClient client;
  for (const char* url : {"file:///etc/passwd", "ftp://127.0.0.1/", "127.0.0.1:80", "", "://", "http://"}) {
    EXPECT_EQ(client.get(url).status().code(), Code::invalid_argument) << url;
  }
  HttpOptions options;
  options.headers = {{"X-A", "1\r\nX-B: 2"}};
  EXPECT_EQ(client.get("http://127.0.0.1/", options).status().code(), Code::invalid_argument);
  options.headers.clear();
  options.bearer = "top\nsecret";
  const Status status = client.get("http://127.0.0.1/", options).status();
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_EQ(status.message().find("secret"), std::string::npos);
}

TEST(HttpClient, NobodyThereIsUnavailableAndHidesSecrets) {
  std::string url = dead_url();
  url.insert(url.find("127"), "user:secret@");
  const Status status = HttpClient().get(url + "?key=secret").status();
  EXPECT_EQ(status.code(), Code::unavailable);
  EXPECT_EQ(status.message().find("secret"), std::string::npos) << status.message();
  EXPECT_EQ(HttpClient().get("http://name.invalid/").status().code(), Code::unavailable);
}

TEST(HttpClient, AReplyThatBreaksOffIsIoAndANoReplyIsUnavailable) {
  LoopbackServer half([](const LoopbackRequest&, LoopbackConnection& connection) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    connection.close();
  });
  EXPECT_EQ(HttpClient().get(half.url("/")).status().code(), Code::io);
  LoopbackServer none([](const LoopbackRequest&, LoopbackConnection& connection) { connection.close(); });
  EXPECT_EQ(HttpClient().get(none.url("/")).status().code(), Code::unavailable);
  LoopbackServer other([](const LoopbackRequest&, LoopbackConnection& connection) {
    connection.send("SSH-2.0-something\r\n");
    connection.close();
  });
  EXPECT_EQ(HttpClient().get(other.url("/")).status().code(), Code::corrupt);
}

TEST(HttpClient, BoundsTheReply) {
  LoopbackServer server([](const LoopbackRequest& request, LoopbackConnection& connection) {
    if (request.head.find("/headers") != std::string::npos) {
      connection.send("HTTP/1.1 200 OK\r\n");
      while (connection.send("X-Long: " + std::string(1000, 'x') + "\r\n")) continue;
    } else if (request.head.find("/endless") != std::string::npos) {
      connection.send("HTTP/1.1 200 OK\r\n\r\n");
      while (connection.send(std::string(1000, 'x'))) continue;
    } else {
      connection.reply(200, std::string(1000, 'x'));
    }
  });
  HttpClient client;
  HttpOptions options;
  options.max_response_bytes = 1000;
  EXPECT_TRUE(client.get(server.url("/"), options).ok());
  options.max_response_bytes = 999;
  EXPECT_EQ(client.get(server.url("/"), options).status().code(), Code::corrupt);
  EXPECT_EQ(client.get(server.url("/endless"), options).status().code(), Code::corrupt);
  EXPECT_FALSE(client.get(server.url("/headers"), options).ok());
}

TEST(HttpClient, TimesOutAndCancels) {
  LoopbackServer server([](const LoopbackRequest&, LoopbackConnection& connection) { connection.wait_for_client(); });
  HttpClient client;
  HttpOptions options;
  options.timeout_s = 0.1;
  EXPECT_EQ(client.get(server.url("/"), options).status().code(), Code::unavailable);
  options.timeout_s = 0;
  options.idle_timeout_s = 0.1;
  EXPECT_EQ(client.get(server.url("/"), options).status().code(), Code::unavailable);
  options.idle_timeout_s = 0;
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    options.cancel.cancel();
  });
  EXPECT_EQ(client.get(server.url("/"), options).status().code(), Code::cancelled);
  canceller.join();
  LoopbackServer fast(echo);  // a call with a token that is set already sends nothing
  EXPECT_EQ(client.get(fast.url("/"), options).status().code(), Code::cancelled);
  EXPECT_EQ(fast.requests(), 0);
}

TEST(HttpClient, StreamsBytesAsTheyCome) {
  std::atomic<int> seen{0};
  LoopbackServer server([&](const LoopbackRequest&, LoopbackConnection& connection) {
    connection.send(kStreamHead);
    for (int i = 0; i < 3; ++i) {
      connection.send("data: x\n\n");
      while (seen <= i) std::this_thread::yield();  // deadlocks unless each piece arrives by itself
    }
    connection.close();
  });
  std::string all;
  const auto reply = HttpClient().post_stream(server.url("/"), "{}", {}, [&](std::string_view bytes) {
    all += bytes;
    ++seen;
    return true;
  });
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_EQ(all, "data: x\n\ndata: x\n\ndata: x\n\n");
  EXPECT_TRUE(reply->body.empty());
}

TEST(HttpClient, StoppingAStreamClosesTheConnection) {
  std::atomic<bool> closed{false};
  LoopbackServer server([&](const LoopbackRequest&, LoopbackConnection& connection) {
    connection.send(kStreamHead);
    while (connection.send("data: x\n\n")) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    closed = true;
  });
  HttpClient client;
  const auto reply = client.post_stream(server.url("/"), "{}", {}, [](std::string_view) { return false; });
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_EQ(reply->status, 200);
  for (const Stopwatch watch; !closed && watch.seconds() < 5;) std::this_thread::yield();
  EXPECT_TRUE(closed);
}

TEST(HttpClient, AStreamThatIsRefusedKeepsItsBody) {
  LoopbackServer server(
      [](const LoopbackRequest&, LoopbackConnection& connection) { connection.reply(400, R"({"error":{}})"); });
  const auto reply = HttpClient().post_stream(server.url("/"), "{}", {}, [](std::string_view) {
    ADD_FAILURE();
    return true;
  });
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->status, 400);
  EXPECT_EQ(reply->body, R"({"error":{}})");
}

}  // namespace
}  // namespace nibble::net
