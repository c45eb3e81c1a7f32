// What must not be in training data: the words with which users of gate cases begin and go on.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "io/json.h"
#include "text/near_duplicates.h"

namespace nibble::synth {

/// Immutable after it is filled, then safe from any thread.
class HoldOut {
 public:
  /// A case and one text of its user.
  void add(std::string_view id, std::string_view text);
  /// All cases of a gate recipe in the binary, of a recipe's file (*.json), or of a file of cases, one a line
  /// (*.jsonl).
  Status add_cases(const std::string& name_or_file);

  /// The case that has this text, whatever its case and punctuation, or one at least .8 similar (near_duplicates.h).
  std::optional<std::string> overlap(std::string_view text) const;
  /// The first overlap of a user's text in a conversation: the case and the text.
  struct Hit {
    std::string id, text;
  };
  std::optional<Hit> overlap_of(const Json& messages) const;

  size_t size() const { return ids_.size(); }

 private:
  std::vector<std::string> ids_;
  std::map<std::string, size_t> exact_;
  text::NearDuplicates near_{0.8};
};

}  // namespace nibble::synth
