#include "engine/replay_script.h"

#include <algorithm>
#include <initializer_list>

#include "base/sha256.h"
#include "io/json.h"

namespace nibble::engine {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;
constexpr size_t kMaxLineBytes = size_t{4} << 20, kMaxEntries = 10'000;
constexpr uint64_t kMaxDelayMs = 600'000, kMaxCount = 1'000'000'000;

std::string shown(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : std::string(value.type_name());
}

// The keys of one object. `where` is the place of the line, `path` that of the object in it, "" for the line itself.
class Fields {
 public:
  static Result<Fields> open(const Json& json, std::string where, std::string path,
                             std::initializer_list<std::string_view> known) {
    Fields fields(json, std::move(where), std::move(path));
    if (!json.is_object()) {
      return corrupt("{}: expected a JSON object, got {}",
                     fields.path_.empty() ? fields.where_ : fields.where_ + ": " + fields.path_, shown(json));
    }
    for (const auto& item : json.items()) {
      if (std::ranges::find(known, item.key()) == known.end()) {
        return corrupt("{}: expected one of the fields {}, got \"{}\"", fields.where_, fmt::join(known, ", "),
                       fields.path(item.key()));
      }
    }
    return fields;
  }

  const Json* find(const char* key) const { return find_value(*json_, key); }
  std::string path(std::string_view key) const {
    return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  }

  Status wrong(std::string_view key, std::string_view expected, const Json* got) const {
    return corrupt("{}: {}: expected {}, got {}", where_, path(key), expected, got == nullptr ? "none" : shown(*got));
  }

  /// Absent leaves `out` as it was.
  template <class T>
  Status whole(const char* key, uint64_t low, uint64_t high, T& out) const {
    const Json* value = find(key);
    if (value == nullptr) return {};
    const bool fits = value->is_number_unsigned() && value->get<uint64_t>() >= low && value->get<uint64_t>() <= high;
    if (!fits) return wrong(key, fmt::format("a whole number from {} to {}", low, high), value);
    out = value->get<int64_t>();
    return {};
  }

 private:
  Fields(const Json& json, std::string where, std::string path)
      : json_(&json), where_(std::move(where)), path_(std::move(path)) {}

  const Json* json_;
  std::string where_, path_;
};

Status read_match(const Json& json, const std::string& where, ReplayEntry& out) {
  NIBBLE_TRY(fields, Fields::open(json, where, "match", {"contains", "index"}));
  NIBBLE_RETURN_IF_ERROR(fields.whole("index", 0, kMaxCount, out.index));
  const Json* contains = fields.find("contains");
  if (contains == nullptr) {
    if (!out.index) return fields.wrong("contains", "a text, or an index beside it", nullptr);
    return {};
  }
  const Json texts = contains->is_array() ? *contains : Json::array({*contains});
  for (const Json& text : texts) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty()) {
      return fields.wrong("contains", "a text or an array of texts, none of them empty", contains);
    }
    out.contains.push_back(text.get<std::string>());
  }
  if (out.contains.empty()) return fields.wrong("contains", "at least one text", contains);
  return {};
}

Result<ReplayChunk> read_chunk(const Json& json, const std::string& where, std::string path) {
  NIBBLE_TRY(fields, Fields::open(json, where, std::move(path), {"text", "delay_ms"}));
  ReplayChunk chunk;
  const Json* text = fields.find("text");
  if (text == nullptr || !text->is_string()) return fields.wrong("text", "a text", text);
  chunk.text = text->get<std::string>();
  NIBBLE_RETURN_IF_ERROR(fields.whole("delay_ms", 0, kMaxDelayMs, chunk.delay_ms));
  return chunk;
}

Status read_reply(const Fields& fields, const std::string& where, ReplayEntry& out) {
  const Json* chunks = fields.find("chunks");
  if (chunks == nullptr || !chunks->is_array()) return fields.wrong("chunks", "an array, or \"refuse\": true", chunks);
  for (size_t i = 0; i < chunks->size(); ++i) {
    NIBBLE_TRY(chunk, read_chunk((*chunks)[i], where, fmt::format("chunks[{}]", i)));
    out.chunks.push_back(std::move(chunk));
  }
  const Json* finish = fields.find("finish");
  if (finish == nullptr || *finish == "stop") return {};
  if (*finish != "length" && *finish != "error") return fields.wrong("finish", "stop, length or error", finish);
  out.finish = *finish == "length" ? Finish::length : Finish::error;
  return {};
}

Result<ReplayEntry> read_entry(const Json& json, const std::string& where) {
  NIBBLE_TRY(fields, Fields::open(json, where, "", {"match", "times", "chunks", "finish", "refuse"}));
  ReplayEntry entry;
  if (const Json* match = fields.find("match")) NIBBLE_RETURN_IF_ERROR(read_match(*match, where, entry));
  NIBBLE_RETURN_IF_ERROR(fields.whole("times", 1, kMaxCount, entry.times));
  if (const Json* refuse = fields.find("refuse")) {
    if (!refuse->is_boolean()) return fields.wrong("refuse", "true or false", refuse);
    entry.refuse = refuse->get<bool>();
  }
  if (!entry.refuse) {
    NIBBLE_RETURN_IF_ERROR(read_reply(fields, where, entry));
    return entry;
  }
  for (const char* key : {"chunks", "finish"}) {
    if (const Json* value = fields.find(key)) return fields.wrong(key, "none beside \"refuse\": true", value);
  }
  return entry;
}

}  // namespace

Result<ReplayScript> parse_replay(std::string_view text, std::string name) {
  ReplayScript script;
  script.name = std::move(name);
  script.fingerprint = sha256_of(text).substr(0, 8);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", script.name, number);
    if (script.entries.size() == kMaxEntries) return corrupt("{}: expected at most {} entries", where, kMaxEntries);
    NIBBLE_TRY(json, parse_json(line, where, {.max_bytes = kMaxLineBytes}));
    NIBBLE_TRY(entry, read_entry(json, where));
    entry.line = number;
    script.entries.push_back(std::move(entry));
  }
  if (script.entries.empty()) return corrupt("{}: expected at least one entry, got none", script.name);
  return script;
}

Result<ReplayScript> read_replay(const Path& file) {
  NIBBLE_TRY(text, read_file(file, kMaxFileBytes));
  return parse_replay(text, file.string());
}

}  // namespace nibble::engine
