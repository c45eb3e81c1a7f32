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
constexpr std::string_view kPromptLoose = "ifeval_prompt_loose";
constexpr std::string_view kInstructionGates[] = {"ifeval_instruction_strict", "ifeval_instruction_loose"};
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

bool counts_instructions(std::string_view gate) {
  return std::find(std::begin(kInstructionGates), std::end(kInstructionGates), gate) != std::end(kInstructionGates);
}

Share share_of(std::string_view gate, const Case& one, const CaseRecord& record) {
  const bool loose = gate == kPromptLoose || gate == kInstructionGates[1];
  if (!loose && !counts_instructions(gate)) return {record.passed() ? 1 : 0, 1};
  Share share;
  bool all_passed = true;
  for (size_t i = 0; i < one.turns.size(); ++i) {
    const auto given = static_cast<int64_t>(one.turns[i].expect.instructions.size());
    const PlayedTurn* turn = i < record.turns.size() ? &record.turns[i] : nullptr;
    int64_t missed = 0;
    bool judged = record.error.empty() && turn != nullptr && !turn->messages.empty();
    for (size_t f = 0; judged && f < turn->failures.size(); ++f) {
      const std::string& what = turn->failures[f].what;
      missed += what == kInstruction || (!loose && what == kInstructionLoose);
      all_passed = all_passed && what == kInstructionLoose;
      judged = what != "aborted" && what != "tool_loop";
    }
    all_passed = all_passed && judged;
    share.n += given;
    share.k += judged ? given - missed : 0;
  }
  return counts_instructions(gate) ? share : Share{all_passed ? 1 : 0, 1};
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
  if (family.empty()) {
    if (!listed || counts_instructions(gate)) return std::nullopt;
    return share_of(gate, one, record).k == 1;
  }
  return !has_family(record, family) && (!listed || record.passed());
}

}  // namespace nibble::gate
