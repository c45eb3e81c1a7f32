// Whole conversations out of an answer that was to be a JSON array of them, whatever became of it: cut off in the
// middle, one element broken, fenced as code, wrapped in an object, with words before and behind.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace nibble::synth {

struct Salvaged {
  std::vector<Json> rows;  // objects with an array "messages", in the order of the text
  int64_t broken = 0;      // conversations that were begun and did not become one
};

/// Total: any bytes. A conversation counts if it is whole by itself; what is wrong with one does not touch the next. A
/// "<think>…</think>" at the start is passed over, so drafts in it are not taken. Time linear in the text but for
/// nesting, which is bounded.
Salvaged salvage(std::string_view text);

}  // namespace nibble::synth
