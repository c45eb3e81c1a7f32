#include "synth/hold_out.h"

#include "gate/recipe.h"
#include "text/case_fold.h"
#include "text/words.h"

namespace nibble::synth {
namespace {

// The words of a text; without any, the text.
std::string key_of(std::string_view text) {
  const std::string folded = text::case_fold(text);
  std::string key;
  for (const std::string_view word : text::words(folded)) key.append(word).append(" ");
  return key.empty() ? folded : key;
}

}  // namespace

void HoldOut::add(std::string_view id, std::string_view text) {
  ids_.emplace_back(id);
  exact_.emplace(key_of(text), ids_.size() - 1);
  near_.add(text);
}

Status HoldOut::add_cases(const std::string& name_or_file) {
  std::vector<gate::Case> cases;
  if (Path(name_or_file).extension() == ".jsonl") {
    NIBBLE_TRY(read, gate::read_cases(name_or_file));
    cases = std::move(read);
  } else {
    NIBBLE_TRY(recipe, gate::load_recipe(name_or_file));
    cases = std::move(recipe.cases);
  }
  for (const gate::Case& one : cases) {
    for (const gate::Turn& turn : one.turns) add(one.id, turn.user);
  }
  return {};
}

std::optional<std::string> HoldOut::overlap(std::string_view text) const {
  if (const auto found = exact_.find(key_of(text)); found != exact_.end()) return ids_[found->second];
  if (const auto near = near_.find(text)) return ids_[*near];
  return std::nullopt;
}

std::optional<HoldOut::Hit> HoldOut::overlap_of(const Json& messages) const {
  for (const Json& message : messages) {
    if (message["role"] != "user" || !message["content"].is_string()) continue;
    const auto& text = message["content"].get_ref<const std::string&>();
    if (auto id = overlap(text)) return Hit{*id, text};
  }
  return std::nullopt;
}

}  // namespace nibble::synth
