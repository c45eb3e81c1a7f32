// When a turn is right, and whether a reply has manners: pure functions over what the model said.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "gate/cases.h"

namespace nibble::gate {

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON text as the server gave it
};

/// One message of the assistant.
struct Reply {
  std::string content = {};
  std::string reasoning = {};  // what the server kept apart from the content
  std::vector<ToolCall> calls = {};
};

struct Verdict {
  enum class Kind : uint8_t {
    feed_result,  // a right call: tool_results[replies - 1] comes next
    pass,
    fail,
  };
  Kind kind;
  std::string reason;  // for fail: expected …, got …
};

/// Judges a turn by its replies so far, at least one; all but the last were calls that got their result.
///
/// A reply with calls is right when fewer calls were made before than there are tool_results, its first call has the
/// expected name, and every string of `args` occurs in that call's arguments written as compact JSON. A reply without
/// calls ends the turn: it must contain every string of `must`, both case-folded, and as many calls must have been made
/// as there are tool_results.
Verdict judge_turn(const Turn& turn, std::span<const Reply> replies);

/// Columns beside the pass rate; true is bad.
struct Manners {
  bool thinks = false;    // reasoning that is not blank, or text of a think detector in the content
  bool markdown = false;  // any md detector
  bool asks = false;      // the confirm detector

  bool clean() const { return !thinks && !markdown && !asks; }
  Manners& operator|=(const Manners& other) {
    thinks |= other.thinks;
    markdown |= other.markdown;
    asks |= other.asks;
    return *this;
  }
};

/// Fails where a detector does (text/detect.h): a text that cannot be examined has no verdict.
Result<Manners> manners_of(const Reply& reply);

}  // namespace nibble::gate
