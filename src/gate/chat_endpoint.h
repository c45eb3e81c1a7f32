// One OpenAI-compatible server, asked for whole replies.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/cancel.h"
#include "base/result.h"
#include "gate/judge.h"
#include "io/json.h"
#include "net/http_client.h"

namespace nibble::gate {

struct EndpointOptions {
  std::string url;       // http://host:port, with or without /v1
  std::string api_key;   // may be empty
  std::string model;     // the id that requests name
  int max_tokens = 110;  // new tokens a reply
  double temperature = 0;
  std::optional<bool> thinking = false;  // chat_template_kwargs.enable_thinking; nothing = the template's own default
  double timeout_s = 300;                // for one reply
  int retries = 3;                       // further attempts after a transport failure
  double first_backoff_s = 0.5;          // doubled with each attempt, at most 8 s; Retry-After wins where it is sent
  CancelToken cancel;
};

/// The reply in the body of a chat completion: choices[0].message. Arguments given as an object become their JSON text;
/// null and absent fields are empty. `corrupt` for anything else.
Result<Reply> parse_reply(std::string_view body);

/// The message that puts a reply into the history, and the one that answers its first call.
Json assistant_message(const Reply& reply);
Json tool_message(const ToolCall& call, const std::string& result);

/// Keeps a connection; one call at a time, so one object a thread.
///
/// What never got an answer is tried again: no byte of a response, or status 408, 429 or 5xx. Errors of both calls:
///   unavailable       still so after the last attempt
///   io                the reply broke off after its first byte; it is not tried again
///   invalid_argument  the server refused the request: 4xx, with the server's own words
///   corrupt           an answer that is not the API's
///   cancelled
class ChatEndpoint {
 public:
  explicit ChatEndpoint(EndpointOptions options);

  /// The ids of /v1/models.
  Result<std::vector<std::string>> models();
  Result<Reply> complete(const Json& messages, const Json& tools);

  int retried() const { return retried_; }

 private:
  Result<std::string> send(const std::string& path, const std::string* body);
  Status wait(double seconds) const;

  EndpointOptions options_;
  net::HttpClient client_;
  int retried_ = 0;
};

}  // namespace nibble::gate
