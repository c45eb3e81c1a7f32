// What `nibble data check` would say of one conversation, and how long it is.
#pragma once

#include <memory>
#include <string_view>

#include "base/file.h"
#include "base/result.h"
#include "io/json.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::synth {

/// Four characters a token, rounded up: what English takes in most vocabularies.
int64_t estimated_tokens(std::string_view text);
/// Over all that the messages and the tools say.
int64_t estimated_tokens(const Json& messages, const Json& tools);

/// Safe from any thread.
class RecordCheck {
 public:
  /// Reads records as training does, and estimates their length.
  RecordCheck() = default;
  /// Makes samples of them, too, by the model's own template and tokenizer, with thinking off.
  static Result<RecordCheck> load(const Path& model);

  /// Tokens of the longest sample of {"messages", "tools"}; `corrupt` or `invalid_argument` with the reason for which
  /// training would refuse the record.
  Result<int64_t> tokens(const Json& record) const;
  bool estimates() const { return tokenizer_ == nullptr; }

 private:
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::shared_ptr<const text::ChatTemplate> template_;
};

}  // namespace nibble::synth
