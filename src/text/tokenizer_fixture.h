// For tests: a small tokenizer.json in the form of Qwen3.5's, to be bent into any shape.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "io/json.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"

namespace nibble::text {

inline constexpr const char* kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

inline Json added_token(int32_t id, const char* content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

/// The 256 bytes as ids 0..255, then the merges l+l, h+e, he+ll, hell+o, Ġ+hello as 256..260, then, after a gap of ids,
/// the added tokens <|end|> 300 and <|end|><|end|> 302 (special) and <think> 301 (not special).
inline Json fixture_json() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[letter_of_byte(static_cast<uint8_t>(byte))] = byte;
  Json merges = Json::array();
  const std::string space = letter_of_byte(' ');
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"l", "l"}, {"h", "e"}, {"he", "ll"}, {"hell", "o"}, {space, "hello"}};
  for (const auto& [left, right] : pairs) {
    const int id = static_cast<int>(vocab.size());
    vocab[left + right] = id;
    merges.push_back({left, right});
  }
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", kQwenPattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", ""},
                      {"end_of_word_suffix", ""},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"ignore_merges", false},
                      {"vocab", vocab},
                      {"merges", merges}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array({added_token(300, "<|end|>", true), added_token(301, "<think>", false),
                                        added_token(302, "<|end|><|end|>", true)})},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level})}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", model}};
}

/// A fixture that must load; an empty config stands for none.
inline Tokenizer must_parse(const Json& tokenizer, const std::string& config = "") {
  auto parsed = Tokenizer::parse(tokenizer.dump(), config);
  if (!parsed.ok()) throw std::runtime_error(parsed.status().text());
  return *parsed;
}

inline std::vector<int32_t> encode(const Tokenizer& tokenizer, std::string_view text,
                                   AddedTokens added = AddedTokens::parse) {
  std::vector<int32_t> ids;
  const Status status = tokenizer.encode(text, added, ids);
  if (!status.ok()) throw std::runtime_error(status.text());
  return ids;
}

}  // namespace nibble::text
