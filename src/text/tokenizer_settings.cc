#include "text/tokenizer_settings.h"

#include <charconv>
#include <map>
#include <set>
#include <utility>

#include "text/tokenizer_json.h"

namespace nibble::text {
namespace {

// The pattern of a ByteLevel pre-tokenizer with use_regex: GPT-2's (encoder.py of openai/gpt-2).
constexpr const char* kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr size_t kMaxSplits = 16;

// A value and where it stands. A member that is missing reads as null, of whatever it is asked.
struct Place {
  const Json& value;
  std::string path;  // "tokenizer.json: model.dropout"

  Place operator[](const char* key) const {
    static const Json kNull;
    const bool there = value.is_object() && value.contains(key);
    return {there ? value[key] : kNull, path + (path.find(':') == std::string::npos ? ": " : ".") + key};
  }
  Place operator[](size_t i) const { return {value[i], fmt::format("{}[{}]", path, i)}; }

  std::string got() const {
    std::string text = value.dump();
    if (text.size() <= 64) return text;
    text.resize(64);
    while (!text.empty() && (text.back() & 0x80) != 0) text.pop_back();
    return text + "…";
  }
  Status unsupported(std::string_view expected) const {
    return nibble::unsupported("{}: expected {}, got {}", path, expected, got());
  }
  Status corrupt(std::string_view expected) const {
    return nibble::corrupt("{}: expected {}, got {}", path, expected, got());
  }

  bool is_type(const char* type) const { return value.is_object() && (*this)["type"].value == type; }

  /// Missing, null and false are off; anything but a boolean is corrupt.
  Result<bool> flag(bool missing = false) const {
    if (value.is_null()) return missing;
    if (!value.is_boolean()) return corrupt("true or false");
    return value.get<bool>();
  }
  /// Refuses everything but "not in use": null, false, 0 and "".
  Status must_be_off(const char* key) const {
    const Place place = (*this)[key];
    const Json& v = place.value;
    if (v.is_null() || v == false || v == "" || (v.is_number() && v == 0)) return {};
    return place.unsupported("none");
  }
};

Status read_normalizer(const Place& normalizer, TokenizerSettings& settings) {
  settings.nfc = normalizer.is_type("NFC");
  if (settings.nfc || normalizer.value.is_null()) return {};
  return normalizer.unsupported("NFC or none");
}

Status read_split(const Place& split, TokenizerSettings& settings) {
  if (split["behavior"].value != "Isolated") return split["behavior"].unsupported("\"Isolated\"");
  NIBBLE_RETURN_IF_ERROR(split.must_be_off("invert"));
  const Place regex = split["pattern"]["Regex"];
  if (!regex.value.is_string()) return split["pattern"].unsupported("a Regex");
  settings.split_patterns.push_back(regex.value.get<std::string>());
  return {};
}

Status read_byte_level(const Place& byte_level, TokenizerSettings& settings) {
  NIBBLE_TRY(prefix_space, byte_level["add_prefix_space"].flag(true));
  if (prefix_space) return byte_level["add_prefix_space"].unsupported("false");
  NIBBLE_TRY(use_regex, byte_level["use_regex"].flag(true));
  if (use_regex) settings.split_patterns.emplace_back(kGpt2Pattern);
  return {};
}

// ByteLevel comes last, because what follows it would see letters instead of text.
Status read_pre_tokenizer(const Place& root, TokenizerSettings& settings) {
  if (root.is_type("ByteLevel")) return read_byte_level(root, settings);
  const Place list = root["pretokenizers"];
  if (!root.is_type("Sequence") || !list.value.is_array() || list.value.empty()) {
    return root.unsupported("ByteLevel, or a Sequence that ends with it");
  }
  if (list.value.size() > kMaxSplits) return list.unsupported(fmt::format("at most {} of them", kMaxSplits));
  const size_t last = list.value.size() - 1;
  for (size_t i = 0; i < last; ++i) {
    if (!list[i].is_type("Split")) return list[i].unsupported("Split");
    NIBBLE_RETURN_IF_ERROR(read_split(list[i], settings));
  }
  if (!list[last].is_type("ByteLevel")) return list[last].unsupported("ByteLevel");
  return read_byte_level(list[last], settings);
}

Status check_post_processor(const Place& post) {
  if (post.value.is_null() || post.is_type("ByteLevel")) return {};
  const Place special = post["special_tokens"];
  if (post.is_type("TemplateProcessing") && (special.value.is_null() || special.value.empty())) return {};
  return post.unsupported("none that adds tokens");
}

Status read_model(const Place& model, TokenizerSettings& settings) {
  if (!model.value.is_object()) return model.corrupt("an object");
  if (!model.is_type("BPE")) return model["type"].unsupported("\"BPE\"");
  for (const char* key : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    NIBBLE_RETURN_IF_ERROR(model.must_be_off(key));
  }
  NIBBLE_TRY(ignore_merges, model["ignore_merges"].flag());
  settings.ignore_merges = ignore_merges;
  return {};
}

// Added tokens by id, with their contents unique.
class AddedTokenTable {
 public:
  Status add(const Place& place, int32_t id, bool override) {
    const Place content = place["content"];
    if (!content.value.is_string()) return content.corrupt("a string");
    AddedToken token = {id, content.value.get<std::string>(), false};
    if (token.content.empty() || token.content.size() > kMaxTokenBytes) {
      return content.corrupt(fmt::format("1 to {} bytes", kMaxTokenBytes));
    }
    for (const char* key : {"lstrip", "rstrip", "single_word", "normalized"}) {
      NIBBLE_TRY(set, place[key].flag());
      if (set) return place[key].unsupported("false");
    }
    NIBBLE_TRY(special, place["special"].flag());
    token.special = special;

    const auto same = by_id_.find(id);
    if (same != by_id_.end() && override && same->second.content == token.content) {
      same->second.special = special;
      return {};
    }
    if (same != by_id_.end()) return place.corrupt(fmt::format("an id other than {}, which is taken", id));
    if (!contents_.insert(token.content).second) return content.corrupt("a content not yet taken");
    by_id_.emplace(id, std::move(token));
    return {};
  }

  std::vector<AddedToken> take() {
    std::vector<AddedToken> tokens;
    for (auto& [id, token] : by_id_) tokens.push_back(std::move(token));
    return tokens;
  }

 private:
  std::map<int32_t, AddedToken> by_id_;
  std::set<std::string, std::less<>> contents_;
};

Status read_added_tokens(const Place& list, AddedTokenTable& table) {
  if (list.value.is_null()) return {};
  if (!list.value.is_array()) return list.corrupt("an array");
  if (list.value.size() > kMaxTokens) return list.corrupt(fmt::format("at most {} tokens", kMaxTokens));
  for (size_t i = 0; i < list.value.size(); ++i) {
    const Place id = list[i]["id"];
    if (!id.value.is_number_unsigned() || id.value.get<uint64_t>() > static_cast<uint64_t>(kMaxTokenId)) {
      return id.corrupt(fmt::format("an id of 0..{}", kMaxTokenId));
    }
    NIBBLE_RETURN_IF_ERROR(table.add(list[i], id.value.get<int32_t>(), false));
  }
  return {};
}

Status read_added_tokens_decoder(const Place& decoder, AddedTokenTable& table) {
  if (decoder.value.is_null()) return {};
  if (!decoder.value.is_object()) return decoder.corrupt("an object");
  for (const auto& [key, token] : decoder.value.items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > kMaxTokenId) {
      return corrupt("{}: expected ids of 0..{} as keys, got \"{}\"", decoder.path, kMaxTokenId, key.substr(0, 64));
    }
    NIBBLE_RETURN_IF_ERROR(table.add({token, decoder.path + "." + key}, id, true));
  }
  return {};
}

// "eos_token": a string, or an added token with its flags.
Status read_eos(const Place& eos, TokenizerSettings& settings) {
  if (eos.value.is_null()) return {};
  const Place text = eos.value.is_object() ? eos["content"] : eos;
  if (!text.value.is_string()) return text.corrupt("a string");
  settings.eos_token = text.value.get<std::string>();
  return {};
}

}  // namespace

Result<TokenizerSettings> read_tokenizer_settings(const Json& tokenizer, const Json& config) {
  TokenizerSettings settings;
  const Place root = {tokenizer, "tokenizer.json"}, extra = {config, "tokenizer_config.json"};
  if (!tokenizer.is_object()) return root.corrupt("an object");
  if (!config.is_object() && !config.is_null()) return extra.corrupt("an object");
  NIBBLE_RETURN_IF_ERROR(read_normalizer(root["normalizer"], settings));
  NIBBLE_RETURN_IF_ERROR(read_pre_tokenizer(root["pre_tokenizer"], settings));
  NIBBLE_RETURN_IF_ERROR(read_model(root["model"], settings));
  NIBBLE_RETURN_IF_ERROR(check_post_processor(root["post_processor"]));
  if (!root["decoder"].is_type("ByteLevel")) return root["decoder"].unsupported("ByteLevel");
  AddedTokenTable added;
  NIBBLE_RETURN_IF_ERROR(read_added_tokens(root["added_tokens"], added));
  NIBBLE_RETURN_IF_ERROR(read_added_tokens_decoder(extra["added_tokens_decoder"], added));
  settings.added = added.take();
  NIBBLE_RETURN_IF_ERROR(read_eos(extra["eos_token"], settings));
  return settings;
}

}  // namespace nibble::text
