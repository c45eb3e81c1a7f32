#include "serve/guard.h"

#include <gtest/gtest.h>

#include "serve/ids.h"
#include "serve/url.h"

namespace nibble::serve {
namespace {

HttpRequest with(Headers headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  request.local_address = "192.0.2.7";
  return request;
}

TEST(Guard, KnowsLoopback) {
  for (const char* host : {"localhost", "LOCALHOST", "localhost.", "app.localhost", "127.0.0.1", "127.9.8.7", "::1",
                           "[::1]", "[::1]:80", "localhost:8080"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
  }
  for (const char* host : {"0.0.0.0", "::", "example.com", "localhost.example.com", "128.0.0.1", "", "127.0.0.1.nip.io",
                           "notlocalhost", "[", "[]", "127.1"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

TEST(Guard, ChecksTheHostHeader) {
  const auto allowed = [](const char* host) { return !check_host(with({{"Host", host}}), "0.0.0.0", {"Box.lan"}); };
  EXPECT_TRUE(allowed("localhost:8080"));
  EXPECT_TRUE(allowed("192.0.2.7:8080"));  // the address the connection came in on
  EXPECT_TRUE(allowed("box.lan"));
  EXPECT_FALSE(allowed("evil.example"));
  EXPECT_FALSE(allowed("192.0.2.8"));
  EXPECT_FALSE(allowed("box.lan.evil.example"));
  const auto error = check_host(with({{"Host", "evil.example"}}), "127.0.0.1", {});
  EXPECT_EQ(error->status, 403);
  EXPECT_EQ(error->code, "host_not_allowed");
  EXPECT_EQ(check_host(with({}), "127.0.0.1", {})->status, 400);
  HttpRequest old = with({});
  old.version = 10;
  EXPECT_FALSE(check_host(old, "127.0.0.1", {}));
}

TEST(Guard, ChecksTheKey) {
  const KeyCheck key("s3cret");
  EXPECT_TRUE(key.allows(with({{"authorization", "Bearer s3cret"}})));
  EXPECT_TRUE(key.allows(with({{"Authorization", "bearer  s3cret "}})));
  EXPECT_TRUE(key.allows(with({{"X-Api-Key", "s3cret"}})));
  for (const Headers& headers :
       {Headers{}, Headers{{"Authorization", "Bearer"}}, Headers{{"Authorization", "Bearer s3cre"}},
        Headers{{"Authorization", "Basic s3cret"}}, Headers{{"Authorization", "s3cret"}},
        Headers{{"X-Api-Key", "S3cret"}}, Headers{{"X-Api-Key", ""}}}) {
    EXPECT_FALSE(key.allows(with(headers)));
  }
  EXPECT_TRUE(KeyCheck("").allows(with({})));
}

TEST(Guard, ChecksTheContentType) {
  for (const char* type : {"application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"}) {
    EXPECT_FALSE(check_content_type(with({{"Content-Type", type}}))) << type;
  }
  for (const char* type : {"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
                           "application/jsonp", "text/plain;application/json"}) {
    EXPECT_EQ(check_content_type(with({{"Content-Type", type}}))->status, 415) << type;
  }
  const auto encoded = [](const char* encoding) {
    return check_content_type(with({{"Content-Type", "application/json"}, {"Content-Encoding", encoding}}));
  };
  EXPECT_FALSE(encoded("identity"));
  EXPECT_EQ(encoded("gzip")->code, "bad_content_type");
}

TEST(Errors, HaveAllFourKeys) {
  const ApiError errors[] = {invalid_value("stop", "expected x"),
                             bad_body("b"),
                             not_found("n"),
                             queue_full(),
                             context_overflow(5, 4),
                             draining(),
                             internal_error(),
                             protocol_error(413, "m"),
                             model_not_found("x")};
  for (const ApiError& error : errors) {
    const HttpResponse response = error.response();
    const Json body = Json::parse(response.body)["error"];
    for (const char* key : {"message", "type", "param", "code"}) EXPECT_TRUE(body.contains(key)) << response.body;
    const bool retry = response.status == 429 || response.status == 503;
    EXPECT_EQ(!find_header(response.headers, "retry-after").empty(), retry);
    EXPECT_EQ(!find_header(response.headers, "Retry-After-Ms").empty(), retry);
  }
}

TEST(Url, DecodesPercent) {
  EXPECT_EQ(percent_decode("a%2Fb%20c"), "a/b c");
  EXPECT_EQ(percent_decode("%"), "%");
  EXPECT_EQ(percent_decode("%4"), "%4");
  EXPECT_EQ(percent_decode("%zz%41"), "%zzA");
}

TEST(Ids, AreRandomAndOfOneForm) {
  const std::string a = make_id("call_"), b = make_id("call_");
  EXPECT_EQ(a.size(), 29u);
  EXPECT_NE(a, b);
  EXPECT_TRUE(is_request_id(a));
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("a\r\nb"), std::string(129, 'a')}) {
    EXPECT_FALSE(is_request_id(bad));
  }
}

}  // namespace
}  // namespace nibble::serve
