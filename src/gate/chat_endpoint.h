// One OpenAI-compatible server, asked for streamed replies.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "gate/reply.h"
#include "io/json.h"
#include "net/http_client.h"

namespace nibble::gate {

struct EndpointOptions {
  std::string url;      // http://host:port, with or without /v1
  std::string api_key;  // may be empty
  std::string model;    // the id that requests name

  double first_token_s = 60;  // how long a reply may be silent before its first token,
  double idle_s = 30;         // between two bytes,
  double reply_s = 300;       // and until it is whole

  int retries = 3;               // further attempts where no token came
  double first_backoff_s = 0.5;  // doubled with each attempt, at most 8 s; Retry-After wins where it is sent
  CancelToken cancel;
};

struct ChatRequest {
  Json messages = Json::array();
  Json tools = Json::array();    // empty: none are sent
  Json params = Json::object();  // further fields of the request: temperature, max_tokens, seed, …
  /// The connection is closed once the content holds so many characters, as when a user speaks over the reply; 0 = not.
  size_t interrupt_after_chars = 0;
};

/// The message that puts a reply into the history, and the one that answers a call.
Json assistant_message(const Reply& reply);
Json tool_message(const ToolCall& call, const std::string& result);

/// How the last attempt was refused.
struct LastResponse {
  int status = 0;             // of HTTP where it was another than 2xx; else 0
  double retry_after_s = -1;  // what the server asked for, where it did
};

/// Keeps a connection; one call at a time, so one object a thread.
///
/// What got no token is tried again: no byte of a response, status 408, 429 or 5xx, a stream that ended before its
/// first chunk, a first token that took too long. A wrong answer never is, nor one that began. Errors:
///   unavailable       still so after the last attempt
///   io                the reply broke off after its first token
///   invalid_argument  the server refused the request: 4xx, with the server's own words
///   corrupt           an answer that is not the API's
///   cancelled
class ChatEndpoint {
 public:
  explicit ChatEndpoint(EndpointOptions options);

  /// The ids of /v1/models.
  Result<std::vector<std::string>> models();
  Result<StreamedReply> complete(const ChatRequest& request);

  /// Any path of the API, with the same retries: GET without a body.
  Result<std::string> send(const std::string& path, const std::string* body = nullptr);

  const EndpointOptions& options() const { return options_; }
  int retried() const { return retried_; }
  const LastResponse& last_response() const { return last_; }

 private:
  struct Attempt {
    Status status;           // ok, or why not
    LastResponse last = {};  // of a response that was none
  };
  Status with_retries(const std::function<Attempt()>& attempt);
  Attempt stream(const std::string& body, const ChatRequest& request, StreamedReply& reply);
  net::HttpOptions http_options() const;
  Status wait(double seconds) const;

  EndpointOptions options_;
  net::HttpClient client_;
  int retried_ = 0;
  LastResponse last_;
};

}  // namespace nibble::gate
