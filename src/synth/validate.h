// Whether a conversation may go into the set: what its category asks for, and what any model may be taught.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "gate/json_schema.h"
#include "synth/hold_out.h"
#include "synth/recipe.h"
#include "synth/record_check.h"
#include "text/encoding_check.h"

namespace nibble::synth {

/// One thing that is wrong: a word for counting, and a sentence that tells the teacher.
struct Fault {
  std::string reason;
  std::string detail;
};

/// Reasons:
///   shape          an unknown role, an empty message, a system message in the middle
///   order          not: user, then the assistant's messages with calls, each followed by one result for each of its
///                  calls, then a reply without calls; and so on, a reply at the end
///   turns          another number of turns than the category's
///   thinking, think, md, tag, role, confirm, …   the detectors of Rules::clean in what the assistant says; thinking is
///                  reasoning that was kept apart
///   encoding       broken characters, other scripts
///   repetition     a reply that runs in circles
///   tool, arguments   a call of a tool that is not there, or not as its schema says
///   calls, wrong_tool, direct   against the category's rules
///   phantom, honest   claims what no call did; does not own up to an empty result, or makes up a fact over it
///   long_reply     more sentences or words than allowed
///   personal_data  in any message
///   pattern        a pattern of the recipe; the detail names it
///   record         what training refuses
///   length         tokens
///   holdout        a text of the user is one of a gate case
/// Immutable, safe from any thread.
class Validator {
 public:
  /// `hold_out` may be null; else it is looked at unless the recipe holds out pairs, and must outlive this. `corrupt`
  /// where the recipe names a tool, a script or a detector that is not there.
  static Result<Validator> make(const Recipe& recipe, RecordCheck check, const HoldOut* hold_out);

  /// Everything that is wrong with {"messages", "tools"}, the system prompt among the messages; nothing if it may go
  /// in. Fails where a detector gives no verdict on a text.
  Result<std::vector<Fault>> faults(const Category& category, const Json& record) const;

  /// What is wrong with one message of the assistant by itself: the detectors, long_reply, encoding, repetition, tool,
  /// arguments, direct.
  Result<std::vector<Fault>> message_faults(const Category& category, const Json& message) const;

  const RecordCheck& check() const { return check_; }

 private:
  Validator(RecordCheck check, const HoldOut* hold_out) : check_(std::move(check)), hold_out_(hold_out) {}

  Status spoken_faults(const Category& category, const std::string& text, std::vector<Fault>& faults) const;
  Status call_faults(const Json& message, std::vector<Fault>& faults) const;
  Status turn_faults(const Category& category, const Json& messages, std::vector<Fault>& faults) const;
  Status set_wide_faults(const Category& category, const Json& record, std::vector<Fault>& faults) const;

  RecordCheck check_;
  const HoldOut* hold_out_;
  std::map<std::string, gate::JsonSchema> tools_;
  std::map<std::string, text::EncodingCheck> encodings_;  // by category
};

/// "reason: detail" of each, one a line.
std::string to_text(const std::vector<Fault>& faults);

}  // namespace nibble::synth
