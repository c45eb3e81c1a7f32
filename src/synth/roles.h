// Who may speak after whom.
#pragma once

#include <vector>

#include "io/json.h"
#include "synth/recipe.h"

namespace nibble::synth {

struct Fault;

/// shape, order and turns of Validator, over messages in the form of records.
std::vector<Fault> role_faults(const Json& messages, Range turns);

}  // namespace nibble::synth
