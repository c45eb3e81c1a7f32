// Rule: one thing that goes wrong with checkpoint folders of this family, how to see it, whom it hurts, and what puts
// it right. A finding is a rule that spoke, with the evidence.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/doctor/folder.h"
#include "checkpoint/doctor/reader.h"

namespace nibble::checkpoint::doctor {

enum class Level : uint8_t {
  note,     // nothing fails; worth knowing
  warning,  // some reader fails or computes something else
  error,    // the folder contradicts itself, or the reader that was asked about fails
};
std::string_view name(Level level);

/// When `--fix` applies a rule's repair.
enum class Repair : uint8_t {
  never,       // there is none; the finding says what to do
  always,      // right for every reader
  for_reader,  // readers want different things: only for the one that was asked for
};

/// Where something stands and what stands there.
struct Evidence {
  std::string file;   // of the folder
  std::string field;  // "text_config.model_type", a tensor's name, …
  std::string value;  // as found; "none" where it is missing
};

struct Finding {
  Evidence evidence;
  std::string failure;           // what fails or what is computed instead
  std::string advice;            // what to do; with a repair, what it does
  bool repairable = true;        // false: this one is beyond the rule's repair
  std::optional<Level> level{};  // instead of the rule's, with or without a target
};
using Findings = std::vector<Finding>;

/// What is asked for; absent: a folder for everyone.
using Asked = std::optional<Reader>;

struct Rule {
  std::string_view id, title;
  std::string_view why;  // and where it is known from
  Readers hurts;
  Level level;       // where no reader is asked for
  Level when_asked;  // where one of `hurts` is
  Repair repair;
  Findings (*check)(const Folder& folder, Asked asked);
  /// Changes what check() complained of, and nothing where it would not complain. nullptr with Repair::never.
  Status (*fix)(Folder& folder, Asked asked);
};

/// Declares the two functions of a rule that has a repair.
#define NIBBLE_DOCTOR_RULE(Name)                 \
  struct Name {                                  \
    static Findings check(const Folder&, Asked); \
    static Status fix(Folder&, Asked);           \
  }

}  // namespace nibble::checkpoint::doctor
