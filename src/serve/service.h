// Service: what all handlers of one server share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "serve/reply_json.h"
#include "serve/serve_options.h"
#include "text/chat_template.h"
#include "text/prompt_lock.h"
#include "text/tokenizer.h"

namespace nibble::serve {

/// Logs each unknown request field once; how many names it remembers is bounded. Thread-safe.
class UnknownFields {
 public:
  void add(const std::vector<std::string>& names);
  /// Fields seen so far, repeated ones included.
  int64_t count() const { return count_; }

 private:
  std::mutex mutex_;
  std::set<std::string> names_;
  std::atomic<int64_t> count_{0};
};

struct Service {
  ServeOptions options;
  std::shared_ptr<engine::Engine> engine;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::shared_ptr<const text::ChatTemplate> chat_template;
  int64_t created = 0;      // Unix time at which the server started
  std::string fingerprint;  // "nibble-VERSION-MODEL"

  UnknownFields unknown_fields;
  std::unique_ptr<text::PromptWatch> prompt_watch;  // never null
  std::atomic<bool> draining{false};
  std::atomic<int> generating{0};  // requests that the engine still owes an event

  /// Whether a request may name the model so; empty names the only one.
  bool serves(const std::string& model) const;
  ReplyHead new_reply(std::string_view id_prefix) const;
};

}  // namespace nibble::serve
