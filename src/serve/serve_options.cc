#include "serve/serve_options.h"

#include <array>

namespace nibble::serve {
namespace {

constexpr std::array<std::string_view, 3> kThinking = {"auto", "on", "off"};
constexpr std::array<std::string_view, 3> kReasoningField = {"reasoning_content", "reasoning", "both"};

template <class Enum>
std::optional<Enum> named(const std::array<std::string_view, 3>& words, std::string_view word) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == word) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace

std::string_view name(Thinking thinking) {
  return kThinking[static_cast<size_t>(thinking)];
}
std::string_view name(ReasoningField field) {
  return kReasoningField[static_cast<size_t>(field)];
}
std::optional<Thinking> thinking_named(std::string_view word) {
  return named<Thinking>(kThinking, word);
}
std::optional<ReasoningField> reasoning_field_named(std::string_view word) {
  return named<ReasoningField>(kReasoningField, word);
}

Thinking thinking_of(const ServeOptions& options) {
  if (options.thinking) return *options.thinking;
  if (!options.prompt_lock || !options.prompt_lock->thinking) return Thinking::automatic;
  return *options.prompt_lock->thinking ? Thinking::on : Thinking::off;
}

}  // namespace nibble::serve
