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

/// Whether the play of a case passes a gate: for a gate of detectors, that none of its replies has a hit and, where the
/// case lists the gate, that it passes; for any other, that it passes, and nothing where the case does not list it.
/// Nothing, too, for a case that the server could not play.
std::optional<bool> passes_gate(std::string_view gate, const Case& one, const CaseRecord& record);

}  // namespace nibble::gate
