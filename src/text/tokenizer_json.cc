#include "text/tokenizer_json.h"

#include <utility>

#include "io/json_builder.h"

namespace nibble::text {
namespace {

constexpr JsonLimits kLimits = {.max_depth = 32, .max_bytes = kMaxTokenizerBytes};

// Diverts model.vocab and model.merges into vectors; everything else is small and becomes the document.
class TokenizerHandler : public JsonBuilder {
 public:
  explicit TokenizerHandler(TokenizerJson& out) : JsonBuilder(out.settings, kLimits), out_(out) {}

  bool start_object(std::size_t n) {
    if (table_ != Table::none) return refuse_value("an object");
    if (depth_ == 2 && in_model_ && key_ == "vocab") {
      table_ = Table::vocab;
      return JsonBuilder::null();
    }
    ++depth_;
    return JsonBuilder::start_object(n);
  }
  bool end_object() {
    if (table_ == Table::vocab) {
      table_ = Table::none;
      return true;
    }
    --depth_;
    return JsonBuilder::end_object();
  }
  bool start_array(std::size_t n) {
    if (table_ == Table::merges && !in_pair_) {
      in_pair_ = true;
      return true;
    }
    if (table_ != Table::none) return refuse_value("an array");
    if (depth_ == 2 && in_model_ && key_ == "merges") {
      table_ = Table::merges;
      return JsonBuilder::null();
    }
    ++depth_;
    return JsonBuilder::start_array(n);
  }
  bool end_array() {
    if (in_pair_) return end_pair();
    if (table_ == Table::merges) {
      table_ = Table::none;
      return true;
    }
    --depth_;
    return JsonBuilder::end_array();
  }
  bool key(std::string& key) {
    if (table_ == Table::vocab) {
      key_ = key;
      return true;
    }
    if (depth_ == 1) in_model_ = key == "model";
    key_ = key;
    return JsonBuilder::key(key);
  }
  bool string(std::string& text) {
    if (table_ == Table::vocab) return refuse_value("a string");
    if (table_ == Table::none) return JsonBuilder::string(text);
    if (!in_pair_) return merge_line(text);
    if (pair_.size() == 2) return refuse("model.merges: a merge of more than two");
    pair_.push_back(std::move(text));
    return true;
  }
  bool number_unsigned(uint64_t number) {
    if (table_ == Table::vocab) return token(number);
    return table_ == Table::none ? JsonBuilder::number_unsigned(number) : refuse_value("a number");
  }
  bool number_integer(int64_t number) {
    return table_ == Table::none ? JsonBuilder::number_integer(number) : refuse_value(std::to_string(number));
  }
  bool number_float(double number, const std::string& text) {
    return table_ == Table::none ? JsonBuilder::number_float(number, text) : refuse_value(text);
  }
  bool boolean(bool value) { return table_ == Table::none ? JsonBuilder::boolean(value) : refuse_value("a boolean"); }
  bool null() { return table_ == Table::none ? JsonBuilder::null() : refuse_value("null"); }

 private:
  enum class Table : uint8_t { none, vocab, merges };

  bool refuse_value(std::string_view got) {
    if (table_ == Table::merges) return refuse("model.merges: {} where a merge of two strings belongs", got);
    return refuse("model.vocab: {} for the id of \"{}\"", got, key_.substr(0, 64));
  }
  bool token(uint64_t id) {
    if (id > static_cast<uint64_t>(kMaxTokenId)) return refuse_value(std::to_string(id));
    if (out_.vocab.size() == kMaxTokens) return refuse("model.vocab: more than {} tokens", kMaxTokens);
    if (key_.empty() || key_.size() > kMaxTokenBytes) {
      return refuse("model.vocab: a token of {} bytes (1 to {} are allowed)", key_.size(), kMaxTokenBytes);
    }
    out_.vocab.push_back({key_, static_cast<int32_t>(id)});
    return true;
  }
  bool merge(std::string left, std::string right) {
    if (out_.merges.size() == kMaxMerges) return refuse("model.merges: more than {} merges", kMaxMerges);
    out_.merges.push_back({std::move(left), std::move(right)});
    return true;
  }
  bool merge_line(const std::string& line) {
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
      return refuse("model.merges: \"{}\" where \"left right\" belongs", line.substr(0, 64));
    }
    return merge(line.substr(0, space), line.substr(space + 1));
  }
  bool end_pair() {
    in_pair_ = false;
    if (pair_.size() != 2) return refuse("model.merges: a merge of {}", pair_.size());
    const bool taken = merge(std::move(pair_[0]), std::move(pair_[1]));
    pair_.clear();
    return taken;
  }

  TokenizerJson& out_;
  int depth_ = 0;          // containers open, the diverted ones not counted
  bool in_model_ = false;  // the key at depth 1 is "model"
  std::string key_;        // the last one read
  Table table_ = Table::none;
  bool in_pair_ = false;
  std::vector<std::string> pair_;
};

}  // namespace

Result<TokenizerJson> read_tokenizer_json(std::string_view json) {
  if (json.size() > kMaxTokenizerBytes) {
    return corrupt("tokenizer.json: expected at most {} bytes, got {}", kMaxTokenizerBytes, json.size());
  }
  TokenizerJson file;
  TokenizerHandler handler(file);
  if (!Json::sax_parse(json, &handler)) return corrupt("tokenizer.json: expected a tokenizer, got {}", handler.error);
  return file;
}

}  // namespace nibble::text
