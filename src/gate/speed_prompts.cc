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

// A line that no other prefix of this seed has. Digits, as tokenizers make the same number of tokens of any as many.
std::string first_line(uint64_t seed, uint64_t prefix, int64_t more_digits = 0) {
  const auto bits = philox(seed, 0, ~prefix);
  const uint64_t number = (static_cast<uint64_t>(bits[0]) << 32 | bits[1]) % 1'000'000'000'000;
  return fmt::format("Note {:012}{}.\n", number, std::string(static_cast<size_t>(more_digits), '7'));
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

PromptShape PromptSizes::nearer(PromptShape shape, int64_t missing) const {
  const int64_t digits = shape.digits + missing;  // if no word changes
  if (digits >= 0 && static_cast<double>(digits) <= 3 * per_word) return {shape.words, digits};
  // Some digits stay, to make up for words that are longer or shorter than most.
  const double words = std::floor(static_cast<double>(digits) / per_word) - 1;
  if (shape.words + static_cast<int64_t>(words) < 1) return {1, 0};
  return {shape.words + static_cast<int64_t>(words), std::llround(static_cast<double>(digits) - words * per_word)};
}

Json sized_messages(uint64_t seed, uint64_t prefix, uint64_t number, const PromptShape& shape) {
  Rng rng(seed);
  std::string text = first_line(seed, prefix, shape.digits);
  for (int64_t i = 0; i < shape.words; ++i) {
    text += kWords[rng.below(static_cast<uint32_t>(kWords.size()))];
    text += i + 1 == shape.words ? "." : (i + 1) % kWordsALine == 0 ? ".\n" : " ";
  }
  return {{{"role", "system"}, {"content", std::move(text)}},
          {{"role", "user"}, {"content", fmt::format("Story {:06}: tell me a very long one.", number)}}};
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
