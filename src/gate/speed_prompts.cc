#include "gate/speed_prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/rng.h"

namespace nibble::gate {
namespace {

constexpr int64_t kWordsALine = 12;

// Short and common, so that a tokenizer of English has about one token for each.
constexpr std::array<std::string_view, 64> kWords = {
    "apple",  "bread",   "bridge", "candle",  "chair",  "cloud",   "coat",   "corner", "door",  "evening", "farmer",
    "field",  "fire",    "flower", "forest",  "garden", "glass",   "green",  "hand",   "hill",  "horse",   "house",
    "island", "kitchen", "lake",   "lamp",    "letter", "light",   "market", "milk",   "moon",  "morning", "mountain",
    "music",  "night",   "ocean",  "orange",  "paper",  "park",    "piano",  "quiet",  "rain",  "river",   "road",
    "room",   "salt",    "school", "shadow",  "silver", "sister",  "small",  "snow",   "stone", "storm",   "story",
    "street", "summer",  "table",  "teacher", "tree",   "village", "water",  "window", "winter"};

constexpr std::array<std::string_view, 20> kVoiceLines = {
    "Good morning, are you there?",
    "I slept badly. What could help me tonight?",
    "What should I have for breakfast?",
    "Is tea better than coffee in the morning?",
    "How long do I boil an egg so that it stays soft?",
    "Give me a small tip for a calm day.",
    "What is a nice walk for a rainy afternoon?",
    "My plants look sad. How often should I water them?",
    "Name one book for a long train ride.",
    "Why is the sky red in the evening?",
    "I have to call my sister today. What could I ask her?",
    "What can I cook with rice and two tomatoes?",
    "How do I say thank you in Italian?",
    "Tell me something kind.",
    "What was my first question today?",
    "How many minutes are there in three hours?",
    "My back hurts from sitting. What can I do at my desk?",
    "Which animal sleeps the longest?",
    "What should I not forget before I leave the house?",
    "Thank you. How would you sum up our talk?",
};

std::string_view word(Rng& rng) {
  return kWords[rng.below(static_cast<uint32_t>(kWords.size()))];
}

// A line that no other prefix of this seed has.
std::string first_line(uint64_t seed, uint64_t prefix) {
  const auto bits = philox(seed, 0, ~prefix);
  return fmt::format("{:08x}{:08x} is the number of this note.\n", bits[0], bits[1]);
}

}  // namespace

PromptSizes PromptSizes::through(int64_t words_a, int64_t tokens_a, int64_t words_b, int64_t tokens_b) {
  PromptSizes sizes;
  if (tokens_a < 0 || words_b <= words_a || tokens_b <= tokens_a) return sizes;
  sizes.per_word = static_cast<double>(tokens_b - tokens_a) / static_cast<double>(words_b - words_a);
  sizes.base = static_cast<double>(tokens_a) - sizes.per_word * static_cast<double>(words_a);
  sizes.measured = true;
  return sizes;
}

int64_t PromptSizes::words(int64_t tokens) const {
  return std::max<int64_t>(1, std::llround((static_cast<double>(tokens) - base) / per_word));
}

Json sized_messages(uint64_t seed, uint64_t prefix, uint64_t number, int64_t words) {
  Rng rng(seed, prefix);
  std::string text = first_line(seed, prefix);
  for (int64_t i = 0; i < words; ++i) {
    text += word(rng);
    text += i + 1 == words || (i + 1) % kWordsALine == 0 ? ".\n" : " ";
  }
  Rng last(seed, ~number);
  const std::string_view a = word(last), b = word(last);
  return {{{"role", "system"}, {"content", std::move(text)}},
          {{"role", "user"},
           {"content", fmt::format("Story {}: tell me a very long one about the {} and the {}.", number, a, b)}}};
}

Json voice_system_message(uint64_t seed, uint64_t conversation) {
  return {{"role", "system"},
          {"content", first_line(seed, conversation) +
                          "You are a companion who speaks with one person by voice. Answer in one or two short, plain "
                          "sentences, as they are spoken: no lists, no headings, no symbols. You are friendly and "
                          "direct. You remember what was said in this talk, and you say so when you do not know "
                          "something. The person lives in a small house with a garden, drinks tea, reads in the "
                          "evening and goes for a walk every day."}};
}

std::string voice_line(int64_t turn) {
  return std::string(kVoiceLines[static_cast<size_t>(turn - 1) % kVoiceLines.size()]);
}

}  // namespace nibble::gate
