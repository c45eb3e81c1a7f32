#include "checkpoint/gguf_text.h"
#include "checkpoint/tokenizer_form.h"

#include <algorithm>

#include "io/json.h"
#include "text/tokenizer_settings.h"

namespace nibble::checkpoint {
namespace {

enum TokenType : int32_t { kPlain = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

constexpr size_t kMaxAdded = 65'536;  // they become JSON, many times their size

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMergesKey = "tokenizer.ggml.merges";
constexpr const char* kEos = "tokenizer.ggml.eos_token_id";
constexpr const char* kEot = "tokenizer.ggml.eot_token_id";
constexpr const char* kPad = "tokenizer.ggml.padding_token_id";
constexpr const char* kBos = "tokenizer.ggml.bos_token_id";
constexpr const char* kTemplate = "tokenizer.chat_template";
constexpr const char* kNfc = "nibble.tokenizer.nfc";
constexpr const char* kStopIds = "nibble.stop_ids";
constexpr const char* kEndOfTurn = "<|im_end|>";
constexpr const char* kEndOfText = "<|endoftext|>";

struct PreTokenizer {
  std::string_view name, pattern;
};

// The patterns of the published tokenizer.json files, and llama.cpp's names for them (src/llama-vocab.cpp).
constexpr PreTokenizer kPreTokenizers[] = {
    {"qwen35",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

/// llama.cpp's name for the way these settings cut words.
Result<std::string_view> pre_tokenizer_of(const text::TokenizerSettings& settings) {
  if (settings.ignore_merges) {
    return unsupported("tokenizer.json: ignore_merges: expected false, got true").with_hint("llama.cpp merges always");
  }
  for (const PreTokenizer& known : kPreTokenizers) {
    if (settings.split_patterns.size() == 1 && settings.split_patterns[0] == known.pattern) return known.name;
  }
  return unsupported("tokenizer.json: pre_tokenizer: expected the Split pattern of Qwen3.5 or Qwen2, got another one")
      .with_hint("llama.cpp knows patterns by name and has none for this tokenizer");
}

struct TokenTable {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
};

Result<TokenTable> token_table(const text::TokenizerJson& json, const text::TokenizerSettings& settings,
                               int64_t vocab) {
  TokenTable table;
  const auto n = static_cast<size_t>(vocab);
  table.tokens.resize(n);
  table.types.assign(n, kUnused);
  const auto set = [&](int32_t id, const std::string& token, TokenType type) -> Status {
    if (id >= vocab) {
      return corrupt("tokenizer.json: expected ids below vocab_size = {}, got {} for \"{}\"", vocab, id, token);
    }
    table.tokens[static_cast<size_t>(id)] = token;
    table.types[static_cast<size_t>(id)] = type;
    return {};
  };
  for (const auto& token : json.vocab) NIBBLE_RETURN_IF_ERROR(set(token.id, token.letters, kPlain));
  for (const text::AddedToken& token : settings.added) {
    NIBBLE_RETURN_IF_ERROR(set(token.id, token.content, token.special ? kControl : kUserDefined));
  }
  for (size_t i = 0; i < n; ++i) {
    if (table.types[i] == kUnused) table.tokens[i] = fmt::format("[PAD{}]", i);
  }
  return table;
}

std::optional<int32_t> id_of(const TokenTable& table, const std::optional<std::string>& token) {
  if (!token) return std::nullopt;
  const auto found = std::find(table.tokens.begin(), table.tokens.end(), *token);
  if (found == table.tokens.end()) return std::nullopt;
  return static_cast<int32_t>(found - table.tokens.begin());
}

void add_ids(const TokenTable& table, const text::TokenizerSettings& settings, const model::Config& config,
             const Generation& generation, GgufMetadata& metadata) {
  const auto add = [&](const char* key, std::optional<int32_t> id) {
    if (id && *id < config.vocab) metadata.add(key, static_cast<uint32_t>(*id));
  };
  std::optional<int32_t> eos = id_of(table, settings.eos_token);
  if (!eos && !generation.stop_ids.empty()) eos = generation.stop_ids.front();
  add(kEos, eos);
  add(kEot, id_of(table, kEndOfTurn));
  add(kPad, config.pad_id);
  add(kBos, config.bos_id);
  metadata.add("tokenizer.ggml.add_bos_token", false);
  metadata.add(kStopIds, generation.stop_ids);
}

void add_sampling(const Generation& g, GgufMetadata& metadata) {
  if (g.do_sample == false) return;
  if (g.temperature) metadata.add("general.sampling.temp", *g.temperature);
  if (g.top_p) metadata.add("general.sampling.top_p", *g.top_p);
  if (g.min_p) metadata.add("general.sampling.min_p", *g.min_p);
  if (g.repetition_penalty) metadata.add("general.sampling.penalty_repeat", *g.repetition_penalty);
  if (g.top_k) metadata.add("general.sampling.top_k", static_cast<uint32_t>(*g.top_k));
}

Result<std::string> read_optional(const Path& file) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return std::string();
  return read_file(file, text::kMaxTokenizerBytes);
}

}  // namespace

Result<bool> add_text(const Path& folder, const model::Config& config, const Generation& generation,
                      GgufMetadata& metadata) {
  NIBBLE_TRY(text, read_file(folder / "tokenizer.json", text::kMaxTokenizerBytes));
  NIBBLE_TRY(json, text::read_tokenizer_json(text));
  NIBBLE_TRY(config_text, read_optional(folder / "tokenizer_config.json"));
  Json tokenizer_config;
  if (!config_text.empty()) {
    NIBBLE_TRY(parsed, parse_json(config_text, "tokenizer_config.json", {.max_depth = 32}));
    tokenizer_config = std::move(parsed);
  }
  NIBBLE_TRY(settings, text::read_tokenizer_settings(json.settings, tokenizer_config));
  NIBBLE_TRY(pre, pre_tokenizer_of(settings));
  NIBBLE_TRY(table, token_table(json, settings, config.vocab));
  metadata.add("tokenizer.ggml.model", "gpt2");
  metadata.add("tokenizer.ggml.pre", pre);
  metadata.add(kTokens, table.tokens);
  metadata.add(kTypes, table.types);
  std::vector<std::string> merges;
  merges.reserve(json.merges.size());
  for (const auto& [left, right] : json.merges) merges.push_back(left + " " + right);
  metadata.add(kMergesKey, merges);
  add_ids(table, settings, config, generation, metadata);
  metadata.add(kNfc, settings.nfc);
  add_sampling(generation, metadata);
  const Result<text::ChatTemplate> chat_template = text::ChatTemplate::load(folder);
  if (chat_template.ok()) {
    metadata.add(kTemplate, chat_template->source());
  } else if (chat_template.status().code() != Code::not_found) {
    return chat_template.status();
  }
  return settings.nfc;
}

namespace {

Status check_model(const Gguf& file, std::string_view& pattern) {
  NIBBLE_TRY(model, file.string("tokenizer.ggml.model"));
  if (!model) return corrupt("tokenizer.ggml.model: expected gpt2, got none ({})", file.file_name());
  if (*model != "gpt2") {
    return unsupported("tokenizer.ggml.model: expected gpt2, got {} ({})", gguf_shown(*model), file.file_name());
  }
  NIBBLE_TRY(pre, file.string("tokenizer.ggml.pre"));
  for (const PreTokenizer& known : kPreTokenizers) {
    if (pre == known.name) {
      pattern = known.pattern;
      return {};
    }
  }
  return unsupported("tokenizer.ggml.pre: expected qwen35 or qwen2, got {} ({})", pre ? gguf_shown(*pre) : "none",
                     file.file_name());
}

/// The token table, with a type for every token.
struct Tokens {
  const GgufArray *texts = nullptr, *types = nullptr;
};

Result<Tokens> read_tokens(const Gguf& file) {
  NIBBLE_TRY(texts, file.strings(kTokens));
  NIBBLE_TRY(types, file.integers(kTypes));
  if (texts == nullptr || types == nullptr || texts->count != types->count || texts->count > text::kMaxTokens) {
    return corrupt("{}: expected up to {} tokens and as many of {}, got {} and {} ({})", kTokens, text::kMaxTokens,
                   kTypes, texts == nullptr ? 0 : texts->count, types == nullptr ? 0 : types->count, file.file_name());
  }
  return Tokens{texts, types};
}

Status read_vocabulary(const Gguf& file, text::TokenizerJson& out, Json& added) {
  NIBBLE_TRY(tokens, read_tokens(file));
  for (uint64_t i = 0; i < tokens.texts->count; ++i) {
    const std::string_view token = tokens.texts->strings[i];
    const int64_t type = tokens.types->integer(i);
    if (type == kUnused) continue;
    if (token.empty() || token.size() > text::kMaxTokenBytes) {
      return corrupt("{}[{}]: expected 1 to {} bytes, got {} ({})", kTokens, i, text::kMaxTokenBytes, token.size(),
                     file.file_name());
    }
    const auto id = static_cast<int32_t>(i);
    if (type == kPlain) {
      out.vocab.push_back({std::string(token), id});
    } else if (type == kControl || type == kUserDefined) {
      if (added.size() == kMaxAdded) {
        return unsupported("{}: expected at most {} added tokens, got more ({})", kTypes, kMaxAdded, file.file_name());
      }
      added.push_back({{"id", static_cast<uint32_t>(id)},
                       {"content", token},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", type == kControl}});
    } else {
      return unsupported("{}[{}]: expected 1, 3, 4 or 5, got {} ({})", kTypes, i, type, file.file_name());
    }
  }
  return {};
}

Status read_merges(const Gguf& file, text::TokenizerJson& out) {
  NIBBLE_TRY(merges, file.strings(kMergesKey));
  if (merges == nullptr)
    return corrupt("{}: expected an array of strings, got none ({})", kMergesKey, file.file_name());
  if (merges->count > text::kMaxMerges) {
    return corrupt("{}: expected at most {}, got {} ({})", kMergesKey, text::kMaxMerges, merges->count,
                   file.file_name());
  }
  for (uint64_t i = 0; i < merges->count; ++i) {
    const std::string_view line = merges->strings[i];
    const size_t space = line.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == line.size() || line.size() > 2 * text::kMaxTokenBytes) {
      return corrupt("{}[{}]: expected \"left right\", got \"{}\" ({})", kMergesKey, i, gguf_shown(line),
                     file.file_name());
    }
    out.merges.push_back({std::string(line.substr(0, space)), std::string(line.substr(space + 1))});
  }
  return {};
}

/// The id under a key; absent where there is none or it names no token.
Result<std::optional<int32_t>> token_id(const Gguf& file, const char* key, const Tokens& tokens) {
  NIBBLE_TRY(id, file.integer(key));
  if (!id || *id < 0 || static_cast<uint64_t>(*id) >= tokens.texts->count) return std::optional<int32_t>();
  return std::optional(static_cast<int32_t>(*id));
}

Result<bool> composes(const Gguf& file) {
  NIBBLE_TRY(nfc, file.boolean(kNfc));
  return nfc.value_or(true);
}

Status read_sampling(const Gguf& file, Generation& out) {
  const auto read = [&](const char* key, double low, double high, std::optional<float>& to) -> Status {
    NIBBLE_TRY(value, file.number(key));
    if (!value) return {};
    if (!(*value >= low) || !(*value <= high)) {
      return corrupt("{}: expected a number in [{},{}], got {} ({})", key, low, high, *value, file.file_name());
    }
    to = static_cast<float>(*value);
    return {};
  };
  NIBBLE_RETURN_IF_ERROR(read("general.sampling.temp", 0, 100, out.temperature));
  NIBBLE_RETURN_IF_ERROR(read("general.sampling.top_p", 0, 1, out.top_p));
  NIBBLE_RETURN_IF_ERROR(read("general.sampling.min_p", 0, 1, out.min_p));
  NIBBLE_RETURN_IF_ERROR(read("general.sampling.penalty_repeat", 0, 10, out.repetition_penalty));
  NIBBLE_TRY(top_k, file.integer("general.sampling.top_k"));
  if (top_k) out.top_k = static_cast<int>(std::clamp<int64_t>(*top_k, 0, 1'000'000));
  return {};
}

}  // namespace

Result<text::TokenizerJson> gguf_tokenizer_json(const Gguf& file) {
  std::string_view pattern;
  NIBBLE_RETURN_IF_ERROR(check_model(file, pattern));
  text::TokenizerJson out;
  Json added = Json::array();
  NIBBLE_RETURN_IF_ERROR(read_vocabulary(file, out, added));
  NIBBLE_RETURN_IF_ERROR(read_merges(file, out));
  NIBBLE_TRY(nfc, composes(file));
  out.settings = byte_level_bpe_json(nfc, pattern, std::move(added));
  return out;
}

Result<Json> gguf_tokenizer_config(const Gguf& file) {
  NIBBLE_TRY(tokens, read_tokens(file));
  Json config = Json::object();
  const std::pair<const char*, const char*> names[] = {{kEos, "eos_token"}, {kPad, "pad_token"}, {kBos, "bos_token"}};
  for (const auto& [key, name] : names) {
    NIBBLE_TRY(id, token_id(file, key, tokens));
    if (id && tokens.types->integer(static_cast<uint64_t>(*id)) != kUnused) {
      config[name] = std::string(tokens.texts->strings[static_cast<size_t>(*id)]);
    }
  }
  return config;
}

Result<Generation> gguf_generation(const Gguf& file) {
  Generation out;
  NIBBLE_TRY(tokens, read_tokens(file));
  const auto add = [&](std::optional<int32_t> id) {
    if (id && std::find(out.stop_ids.begin(), out.stop_ids.end(), *id) == out.stop_ids.end()) {
      out.stop_ids.push_back(*id);
    }
  };
  constexpr uint64_t kMaxStops = 1000;
  NIBBLE_TRY(own, file.integers(kStopIds));
  for (uint64_t i = 0; own != nullptr && i < std::min(own->count, kMaxStops); ++i) {
    const int64_t id = own->integer(i);
    if (id >= 0 && static_cast<uint64_t>(id) < tokens.texts->count) add(static_cast<int32_t>(id));
  }
  for (const char* key : {kEos, kEot}) {
    NIBBLE_TRY(id, token_id(file, key, tokens));
    add(id);
  }
  for (uint64_t i = 0; i < tokens.texts->count; ++i) {
    const std::string_view token = tokens.texts->strings[i];
    const bool ends = token == kEndOfTurn || token == kEndOfText;
    if (ends && tokens.types->integer(i) == kControl) add(static_cast<int32_t>(i));
  }
  NIBBLE_RETURN_IF_ERROR(read_sampling(file, out));
  return out;
}

Result<GgufText> read_gguf_text(const Path& path) {
  NIBBLE_TRY(file, Gguf::open(path));
  NIBBLE_TRY(json, gguf_tokenizer_json(file));
  NIBBLE_TRY(config, gguf_tokenizer_config(file));
  NIBBLE_TRY(tokenizer, text::Tokenizer::assemble(json, config));
  NIBBLE_TRY(source, file.string(kTemplate));
  if (!source) return not_found("{}: expected a chat template, got none ({})", kTemplate, file.file_name());
  NIBBLE_TRY(chat_template, text::ChatTemplate::parse(std::string(*source), path.string(), config));
  NIBBLE_TRY(nfc, composes(file));
  return GgufText{std::move(tokenizer), std::move(chat_template), nfc};
}

}  // namespace nibble::checkpoint
