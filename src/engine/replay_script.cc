#include "engine/replay_script.h"

#include "base/sha256.h"
#include "io/jsonl.h"
#include "io/object_reader.h"

namespace nibble::engine {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;
constexpr size_t kMaxLineBytes = size_t{4} << 20, kMaxEntries = 10'000;
constexpr int64_t kMaxDelayMs = 600'000, kMaxCount = 1'000'000'000;

constexpr Word<Finish> kFinish[] = {{"stop", Finish::stop}, {"length", Finish::length}, {"error", Finish::error}};

// Leaves `out` without a value where the key is absent.
void read_count(ObjectReader& reader, const char* key, int64_t low, std::optional<int64_t>& out) {
  int64_t count = -1;
  reader.whole_number(key, low, kMaxCount, count);
  if (count >= low) out = count;
}

Status read_match(const Json& json, std::string where, ReplayEntry& out) {
  ObjectReader match(json, std::move(where));
  read_count(match, "index", 0, out.index);
  if (!out.index) match.require("contains");
  if (const Json* contains = match.value("contains")) {
    const Json texts = contains->is_array() ? *contains : Json::array({*contains});
    const bool fit = !texts.empty() && std::ranges::all_of(texts, [](const Json& text) {
      return text.is_string() && !text.get_ref<const std::string&>().empty();
    });
    if (fit) {
      out.contains = texts.get<std::vector<std::string>>();
    } else {
      match.expected_of("contains", "a text or a list of texts, none of them empty", *contains);
    }
  }
  return match.finish();
}

Result<ReplayChunk> read_chunk(const Json& json, std::string where) {
  ObjectReader reader(json, std::move(where));
  ReplayChunk chunk;
  reader.require("text");
  reader.text("text", chunk.text);
  reader.whole_number("delay_ms", 0, kMaxDelayMs, chunk.delay_ms);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return chunk;
}

void read_chunks(ObjectReader& reader, std::vector<ReplayChunk>& out) {
  const Json* chunks = reader.value("chunks");
  if (chunks == nullptr) return;
  if (!chunks->is_array()) return reader.expected_of("chunks", "a list", *chunks);
  for (size_t i = 0; i < chunks->size(); ++i) {
    auto chunk = read_chunk((*chunks)[i], fmt::format("{}: chunks[{}]", reader.where(), i));
    if (!chunk.ok()) return reader.fail(chunk.status());
    out.push_back(std::move(*chunk));
  }
}

Result<ReplayEntry> read_entry(const Json& json, const std::string& where) {
  ObjectReader reader(json, where);
  ReplayEntry entry;
  if (const Json* match = reader.value("match")) {
    if (Status status = read_match(*match, where + ": match", entry); !status.ok()) reader.fail(std::move(status));
  }
  read_count(reader, "times", 1, entry.times);
  reader.flag("refuse", entry.refuse);
  if (!entry.refuse) reader.require("chunks");
  read_chunks(reader, entry.chunks);
  reader.word("finish", kFinish, entry.finish);
  if (entry.refuse && (reader.has("chunks") || reader.has("finish"))) {
    reader.fail(corrupt("{}: refuse: expected neither chunks nor finish beside it", where));
  }
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return entry;
}

}  // namespace

Result<ReplayScript> parse_replay(std::string_view text, std::string name) {
  ReplayScript script;
  script.name = std::move(name);
  script.fingerprint = sha256_of(text).substr(0, 8);
  NIBBLE_RETURN_IF_ERROR(for_each_line(text, [&](const TextLine& line) -> Status {
    const std::string where = fmt::format("{}:{}", script.name, line.number);
    if (script.entries.size() == kMaxEntries) return corrupt("{}: expected at most {} entries", where, kMaxEntries);
    NIBBLE_TRY(json, parse_json(line.text, where, {.max_bytes = kMaxLineBytes}));
    NIBBLE_TRY(entry, read_entry(json, where));
    entry.line = line.number;
    script.entries.push_back(std::move(entry));
    return {};
  }));
  if (script.entries.empty()) return corrupt("{}: expected at least one entry, got none", script.name);
  return script;
}

Result<ReplayScript> read_replay(const Path& file) {
  NIBBLE_TRY(text, read_file(file, kMaxFileBytes));
  return parse_replay(text, file.string());
}

}  // namespace nibble::engine
