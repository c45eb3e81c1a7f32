// How a server is set up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/http_server.h"
#include "text/dialect.h"
#include "text/prompt_lock.h"

namespace nibble::serve {

enum class Thinking : uint8_t { automatic, on, off };  // automatic: as the template does by itself
enum class ReasoningField : uint8_t { reasoning_content, reasoning, both };

/// The words of the flags --thinking and --reasoning-field.
std::string_view name(Thinking thinking);
std::string_view name(ReasoningField field);
std::optional<Thinking> thinking_named(std::string_view word);
std::optional<ReasoningField> reasoning_field_named(std::string_view word);

struct ServeOptions {
  std::string host = "127.0.0.1";  // an IP address or "localhost"
  uint16_t port = 8080;            // 0: the system picks one
  std::string api_key = {};        // empty: none is asked for
  bool insecure = false;           // allows a bind beyond loopback without a key
  std::vector<std::string> allowed_hosts =
      {};  // names that the Host header may give beside loopback and the bind address

  std::string model_id = "nibble";
  std::vector<std::string> aliases = {};
  bool any_model = false;  // whatever a request calls the model, it gets this one

  std::optional<Thinking> thinking = {};             // absent: as the model was trained, else automatic
  std::optional<text::PromptLock> prompt_lock = {};  // what the model was trained to be asked with
  text::ToolDialect dialect = text::ToolDialect::automatic;
  ReasoningField reasoning_field = ReasoningField::reasoning_content;
  std::string no_user_text = "Hello.";  // the user message of a conversation that has none
  bool allow_control_text = false;      // control tokens typed by users count as such, as in transformers
  bool strict_template = false;         // messages go to the template as they are, and its complaints to the client
  bool tools_verbatim = false;          // `strict` and `title` stay in the tools that the prompt shows
  int64_t default_max_tokens = 0;       // of requests that name no limit; 0: what is left of the context

  double ping_s = 15;          // a stream that is silent for this long sends a comment
  double headers_after_s = 2;  // a stream that waits in the queue sends its headers by then
  HttpLimits limits = {};
};

/// What requests that do not say get.
Thinking thinking_of(const ServeOptions& options);

}  // namespace nibble::serve
