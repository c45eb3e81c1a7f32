#include "checkpoint/generation.h"

#include <algorithm>
#include <charconv>

#include "io/json.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kGenerationFile = "generation_config.json";
constexpr int64_t kReleasedVocab = 248320;
constexpr int32_t kEndOfText = 248044, kImEnd = 248046;

/// The file as an object; absent when there is none.
Result<std::optional<Json>> read_optional(const Path& folder, const char* name) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder / name, ignored)) return std::optional<Json>();
  NIBBLE_TRY(text, read_file(folder / name));
  NIBBLE_TRY(json, parse_json(text, name));
  if (!json.is_object()) return corrupt("{}: expected an object, got {}", name, json.type_name());
  return std::optional<Json>(std::move(json));
}

void add_stop(std::vector<int32_t>& ids, int32_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

bool is_token_id(const Json& value) {
  return value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() <= INT32_MAX;
}

Status add_stops(const Json& object, std::vector<int32_t>& ids) {
  const Json* eos = find_value(object, "eos_token_id");
  if (eos == nullptr) return {};
  const Json list = eos->is_array() ? *eos : Json::array({*eos});
  for (const Json& id : list) {
    if (!is_token_id(id)) {
      return corrupt("eos_token_id: expected a token id or a list of them, got {} ({})", id.type_name(),
                     kGenerationFile);
    }
    add_stop(ids, id.get<int32_t>());
  }
  return {};
}

Status read_number(const Json& object, const char* key, double low, double high, std::optional<float>& out) {
  const Json* value = find_value(object, key);
  if (value == nullptr) return {};
  if (!value->is_number() || !(value->get<double>() >= low) || !(value->get<double>() <= high)) {
    return corrupt("{}: expected a number in [{},{}], got {} ({})", key, low, high,
                   value->is_number() ? value->dump() : value->type_name(), kGenerationFile);
  }
  out = value->get<float>();
  return {};
}

Status read_sampling(const Json& object, Generation& out) {
  NIBBLE_RETURN_IF_ERROR(read_number(object, "temperature", 0, 100, out.temperature));
  NIBBLE_RETURN_IF_ERROR(read_number(object, "top_p", 0, 1, out.top_p));
  NIBBLE_RETURN_IF_ERROR(read_number(object, "min_p", 0, 1, out.min_p));
  NIBBLE_RETURN_IF_ERROR(read_number(object, "repetition_penalty", 0, 10, out.repetition_penalty));
  std::optional<float> top_k;
  NIBBLE_RETURN_IF_ERROR(read_number(object, "top_k", -1, 1e6, top_k));
  if (top_k) out.top_k = std::max(0, static_cast<int>(*top_k));  // -1 is another spelling of "off"
  if (const Json* sample = find_value(object, "do_sample"); sample != nullptr && sample->is_boolean()) {
    out.do_sample = sample->get<bool>();
  }
  return {};
}

/// Finds one entry of "added_tokens" in a tokenizer.json and stops there: the vocabulary that follows is large.
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(std::string_view content) : wanted_(content) {}

  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(int64_t) { return true; }
  bool number_float(double, const std::string&) { return true; }
  bool binary(std::vector<uint8_t>&) { return true; }
  bool number_unsigned(uint64_t value) {
    if (in_token() && key_ == "id") id_ = value;
    return true;
  }
  bool string(std::string& value) {
    if (in_token() && key_ == "content") matches_ = value == wanted_;
    return true;
  }
  bool key(std::string& key) {
    if (depth_ == 1) in_list_ = key == "added_tokens";
    if (depth_ == 1 || in_token()) key_ = key;
    return true;
  }
  bool start_object(size_t) { return enter(); }
  bool start_array(size_t) { return enter(); }
  bool end_object() {
    if (in_token() && matches_ && id_ <= static_cast<uint64_t>(INT32_MAX)) {
      found = static_cast<int32_t>(id_);
      return false;
    }
    return leave();
  }
  bool end_array() {
    if (in_list_ && depth_ == 2) return false;
    return leave();
  }
  template <class Exception>
  bool parse_error(size_t, const std::string&, const Exception&) {
    return false;
  }

  std::optional<int32_t> found;

 private:
  static constexpr int kMaxDepth = 64;

  bool in_token() const { return in_list_ && depth_ == 3; }
  bool enter() {
    ++depth_;
    if (in_token()) {
      matches_ = false;
      id_ = UINT64_MAX;
    }
    return depth_ <= kMaxDepth;
  }
  bool leave() {
    --depth_;
    return true;
  }

  std::string_view wanted_;
  std::string key_;
  int depth_ = 0;
  bool in_list_ = false, matches_ = false;
  uint64_t id_ = UINT64_MAX;
};

std::string token_text(const Json* token) {
  if (token == nullptr) return {};
  if (token->is_string()) return token->get<std::string>();
  if (!token->is_object()) return {};
  const Json* content = find_value(*token, "content");
  return content != nullptr && content->is_string() ? content->get<std::string>() : std::string();
}

/// The id of `content` in tokenizer_config.json's added_tokens_decoder: {"248044": {"content": …}}.
std::optional<int32_t> decoder_id(const Json& tokenizer_config, std::string_view content) {
  const Json* decoder = find_value(tokenizer_config, "added_tokens_decoder");
  if (decoder == nullptr || !decoder->is_object()) return std::nullopt;
  for (const auto& [key, token] : decoder->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    const bool whole = error == std::errc() && end == key.data() + key.size() && id >= 0;
    if (whole && token_text(&token) == content) return id;
  }
  return std::nullopt;
}

Result<std::optional<int32_t>> tokenizer_eos(const Path& folder) {
  NIBBLE_TRY(config, read_optional(folder, "tokenizer_config.json"));
  if (!config) return std::optional<int32_t>();
  const std::string eos = token_text(find_value(*config, "eos_token"));
  if (eos.empty()) return std::optional<int32_t>();
  if (const auto id = decoder_id(*config, eos)) return id;
  std::error_code ignored;
  if (!std::filesystem::exists(folder / "tokenizer.json", ignored)) return std::optional<int32_t>();
  NIBBLE_TRY(text, MappedFile::open(folder / "tokenizer.json"));
  AddedTokenFinder finder(eos);
  const auto* begin = reinterpret_cast<const char*>(text.bytes().data());
  Json::sax_parse(begin, begin + text.bytes().size(), &finder);
  return finder.found;
}

}  // namespace

Result<Generation> read_generation(const Path& folder, const model::Config& config) {
  Generation out;
  out.stop_ids = config.eos_ids;
  NIBBLE_TRY(file, read_optional(folder, kGenerationFile));
  if (file) {
    NIBBLE_RETURN_IF_ERROR(add_stops(*file, out.stop_ids));
    NIBBLE_RETURN_IF_ERROR(read_sampling(*file, out));
  }
  NIBBLE_TRY(eos, tokenizer_eos(folder));
  if (eos) add_stop(out.stop_ids, *eos);
  if (config.vocab == kReleasedVocab) {
    add_stop(out.stop_ids, kEndOfText);
    add_stop(out.stop_ids, kImEnd);
  }
  return out;
}

}  // namespace nibble::checkpoint
