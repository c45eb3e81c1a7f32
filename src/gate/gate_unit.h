// What a gate counts, by its id (docs/gates.md).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "gate/case.h"
#include "gate/record.h"

namespace nibble::gate {

/// The family of detectors that the gate counts over all replies; empty for any other gate.
std::string_view leak_family(std::string_view gate);
bool is_latency_gate(std::string_view gate);

/// The first finding of a family in a message that is not excused, or null.
const Anomaly* find_family(const PlayedMessage& message, std::string_view family);
/// Whether any message of the record has one.
bool has_family(const CaseRecord& record, std::string_view family);

/// Gates of instructions (gate/ifeval.h): ifeval_instruction_strict and ifeval_instruction_loose count instructions,
/// not cases; ifeval_prompt_loose counts cases of which every instruction is followed at least loosely.
bool counts_instructions(std::string_view gate);

/// What the play of a case that lists the gate adds to its rate: k of n. One case, but for gates that count
/// instructions; those of a turn that was not played to its end are not followed.
struct Share {
  int64_t k = 0, n = 0;
};
Share share_of(std::string_view gate, const Case& one, const CaseRecord& record);

/// Whether the play of a case passes a gate: for a gate of detectors, that none of its replies has a hit and, where the
/// case lists the gate, that it passes; for any other, that it passes, and nothing where the case does not list it or
/// the gate counts no cases. Nothing, too, for a case that the server could not play.
std::optional<bool> passes_gate(std::string_view gate, const Case& one, const CaseRecord& record);

}  // namespace nibble::gate
