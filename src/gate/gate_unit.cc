#include "gate/gate_unit.h"

#include <algorithm>

namespace nibble::gate {
namespace {

constexpr std::pair<std::string_view, std::string_view> kLeakGates[] = {{"thinking_leak", "think"},
                                                                        {"markdown_leak", "md"},
                                                                        {"tag_leak", "tag"},
                                                                        {"role", "role"},
                                                                        {"encoding", "encoding"},
                                                                        {"repetition", "repetition"},
                                                                        {"hidden_thinking", "hidden_thinking"}};
constexpr std::string_view kLatencyGates[] = {"ttft", "ttft_growth", "decode"};

}  // namespace

std::string_view leak_family(std::string_view gate) {
  for (const auto& [id, family] : kLeakGates) {
    if (id == gate) return family;
  }
  return {};
}

bool is_latency_gate(std::string_view gate) {
  return std::find(std::begin(kLatencyGates), std::end(kLatencyGates), gate) != std::end(kLatencyGates);
}

const Anomaly* find_family(const PlayedMessage& message, std::string_view family) {
  for (const Anomaly& anomaly : message.anomalies) {
    if (anomaly.family() == family && anomaly.suppressed.empty()) return &anomaly;
  }
  return nullptr;
}

bool has_family(const CaseRecord& record, std::string_view family) {
  return std::any_of(record.turns.begin(), record.turns.end(), [&](const PlayedTurn& turn) {
    return std::any_of(turn.messages.begin(), turn.messages.end(),
                       [&](const PlayedMessage& message) { return find_family(message, family) != nullptr; });
  });
}

std::optional<bool> passes_gate(std::string_view gate, const Case& one, const CaseRecord& record) {
  if (!record.lacking.empty()) return {};
  const bool listed = std::find(one.gates.begin(), one.gates.end(), gate) != one.gates.end();
  const std::string_view family = leak_family(gate);
  if (family.empty()) return listed ? std::optional(record.passed()) : std::nullopt;
  return !has_family(record, family) && (!listed || record.passed());
}

}  // namespace nibble::gate
