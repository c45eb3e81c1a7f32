// HTTP/1.1 and HTTP/2 as a client, over libcurl: whole replies and streamed ones.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"

namespace nibble::net {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpOptions {
  double connect_timeout_s = 5;
  double timeout_s = 0;             // for the whole exchange; 0 = none
  double idle_timeout_s = 0;        // without a single byte, waiting for the first one included; 0 = none
  double first_byte_timeout_s = 0;  // instead of idle_timeout_s before the first byte of the reply; 0 = the same
  size_t max_response_bytes = size_t{64} << 20;
  std::string bearer;   // sent as Authorization: Bearer …; never part of an error message
  HttpHeaders headers;  // beside those of the client; a name given here wins
  CancelToken cancel;   // looked at every 20 ms
};

struct HttpResponse {
  int status = 0;
  HttpHeaders headers;  // names in lower case, in the order received
  std::string body;
  double sent_s = 0;     // base/clock.h's now_s() when the connection stood and the request was on its way
  double headers_s = 0;  // the same when the last header line had come

  bool ok() const { return status >= 200 && status < 300; }
  /// The first header of that (lower-case) name, or null.
  const std::string* header(std::string_view name) const;
};

/// A client keeps its connections alive between calls. One call at a time: use a client per thread.
///
/// Any HTTP status is an answer, not an error; redirects are not followed. Proxies and .netrc are not used, and no
/// environment variable is read. Errors:
///   invalid_argument  not an http or https URL, or a line break in a header
///   unavailable       no byte of a response came: refused, unresolved, timed out, closed. The call may be repeated.
///   io                the response broke off after its first byte
///   corrupt           not HTTP, or more than max_response_bytes
///   cancelled         options.cancel was set
class HttpClient {
 public:
  using OnData = std::function<bool(std::string_view bytes)>;

  HttpClient();
  ~HttpClient();
  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;

  Result<HttpResponse> get(const std::string& url, const HttpOptions& options = {});

  /// Sends `body` as application/json unless options.headers name another Content-Type.
  Result<HttpResponse> post(const std::string& url, std::string_view body, const HttpOptions& options = {});

  /// As post, but the bytes of a 2xx body go to on_data as they come, with no limit on their sum; on_data returns false
  /// to close the connection, which is not an error. The body of any other status stays in the response.
  Result<HttpResponse> post_stream(const std::string& url, std::string_view body, const HttpOptions& options,
                                   const OnData& on_data);

 private:
  struct Handles;
  Result<HttpResponse> send(const std::string& url, const std::string_view* body, const HttpOptions& options,
                            const OnData* on_data);

  std::unique_ptr<Handles> handles_;
};

}  // namespace nibble::net
