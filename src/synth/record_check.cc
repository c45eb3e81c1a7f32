#include "synth/record_check.h"

#include <algorithm>

#include "train/record.h"
#include "train/sample.h"

namespace nibble::synth {
namespace {

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

int64_t characters(const Json& json) {
  if (json.is_string()) return characters(std::string_view(json.get_ref<const std::string&>()));
  if (!json.is_structured()) return 4;
  int64_t sum = 0;
  for (const auto& item : json.items()) {
    sum += characters(item.value()) + (json.is_object() ? characters(std::string_view(item.key())) : 0);
  }
  return sum;
}

}  // namespace

int64_t estimated_tokens(std::string_view text) {
  return (characters(text) + 3) / 4;
}

int64_t estimated_tokens(const Json& messages, const Json& tools) {
  return (characters(messages) + characters(tools) + 3) / 4;
}

Result<RecordCheck> RecordCheck::load(const Path& model) {
  RecordCheck check;
  NIBBLE_TRY(tokenizer, text::Tokenizer::load(model));
  NIBBLE_TRY(chat_template, text::ChatTemplate::load(model));
  check.tokenizer_ = std::make_shared<const text::Tokenizer>(std::move(tokenizer));
  check.template_ = std::make_shared<const text::ChatTemplate>(std::move(chat_template));
  return check;
}

Result<int64_t> RecordCheck::tokens(const Json& record) const {
  const std::string line = record.dump(-1, ' ', false, Json::error_handler_t::replace);
  NIBBLE_TRY(parsed, train::parse_record(line, "conversation"));
  if (tokenizer_ == nullptr) return estimated_tokens(record["messages"], record["tools"]);
  NIBBLE_TRY(samples, train::make_samples(parsed, *tokenizer_, *template_, {}));
  int64_t longest = 0;
  for (const train::Sample& sample : samples.samples) longest = std::max(longest, sample.tokens());
  if (longest == 0) return corrupt("conversation: expected something to train, got nothing");
  return longest;
}

}  // namespace nibble::synth
