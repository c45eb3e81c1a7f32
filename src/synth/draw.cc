#include "synth/draw.h"

#include "base/sha256.h"
#include "gate/chat_stream.h"

namespace nibble::synth {
namespace {

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

Rng rng_of(const Recipe& recipe, uint64_t seed, std::string_view category, int64_t cell, std::string_view purpose) {
  const std::string hex = Sha256()
                              .add(recipe.fingerprint)
                              .add_values(std::span<const uint64_t>(&seed, 1))
                              .add(category)
                              .add_values(std::span<const int64_t>(&cell, 1))
                              .add(purpose)
                              .hex();
  return Rng(std::stoull(hex.substr(0, 16), nullptr, 16));
}

void draw_words(const Recipe& recipe, const std::vector<Draw>& draw, Rng& rng, Words& words) {
  for (const Draw& one : draw) {
    const Json& list = recipe.data.at(one.list);
    const Json& item = list[rng.below(static_cast<uint32_t>(list.size()))];
    if (!item.is_object()) {
      words[one.word] = text_of(item);
      continue;
    }
    for (const auto& field : item.items()) {
      words[one.word.empty() ? field.key() : one.word + "." + field.key()] = text_of(field.value());
    }
  }
}

std::string persona_of(const Words& words) {
  for (const char* word : {"persona", "user", "name"}) {
    if (const auto found = words.find(word); found != words.end()) return found->second;
  }
  return words.empty() ? "" : words.begin()->second;
}

int64_t between(Range range, Rng& rng) {
  return range.low + rng.below(static_cast<uint32_t>(range.high - range.low + 1));
}

bool held_out_pair(std::string_view a, std::string_view b) {
  uint32_t hash = 2166136261U;
  const auto add = [&](char c) { hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U; };
  for (const char c : a) add(c);
  add('|');
  for (const char c : b) add(c);
  return (hash >> 8) % 10 == 0;
}

std::optional<std::pair<std::string, std::string>> held_out_pair_of(const Json& meta) {
  for (const Json& pair : gate::member(meta, "pairs")) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) continue;
    auto a = pair[0].get<std::string>(), b = pair[1].get<std::string>();
    if (held_out_pair(a, b)) return std::pair(std::move(a), std::move(b));
  }
  return std::nullopt;
}

}  // namespace nibble::synth
