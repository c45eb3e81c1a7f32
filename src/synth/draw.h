// What chance decides about a conversation: the same numbers for the same recipe, seed, category and cell, always.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/rng.h"
#include "synth/fill.h"
#include "synth/recipe.h"

namespace nibble::synth {

/// A generator for one purpose inside a cell of a category.
Rng rng_of(const Recipe& recipe, uint64_t seed, std::string_view category, int64_t cell, std::string_view purpose);

/// Draws one item for each entry, in their order, and puts its words into `words`. Lists of the recipe only (checked
/// when it was loaded).
void draw_words(const Recipe& recipe, const std::vector<Draw>& draw, Rng& rng, Words& words);

template <class T>
const T& one_of(const std::vector<T>& items, Rng& rng) {
  return items[rng.below(static_cast<uint32_t>(items.size()))];
}

/// Whom a conversation is with: the word persona, user or name, else the first; what `data split` keeps together.
std::string persona_of(const Words& words);

int64_t between(Range range, Rng& rng);

/// Whether a pair is kept for evaluation: FNV-1a in 32 bits over "A|B", its lowest 8 bits left out, divides by 10. It
/// is how the bundled world's cases were chosen.
bool held_out_pair(std::string_view a, std::string_view b);

/// The first pair under "pairs" that is held out; of a row's `meta`, which may be anybody's, or of what was drawn for
/// it.
std::optional<std::pair<std::string, std::string>> held_out_pair_of(const Json& meta);

}  // namespace nibble::synth
