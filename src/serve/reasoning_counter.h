// Counts the tokens of a reply that belong to its reasoning, by the tags' own token ids.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "text/tokenizer.h"

namespace nibble::serve {

class ReasoningCounter {
 public:
  /// `open`: the prompt ended inside a think block. `calls`: a tool call ends the reasoning too.
  ReasoningCounter(const text::Tokenizer& tokenizer, bool open, bool calls)
      : think_(tokenizer.added_token("<think>")),
        end_think_(tokenizer.added_token("</think>")),
        call_(calls ? tokenizer.added_token("<tool_call>") : std::nullopt),
        open_(open) {}

  void add(const std::vector<int32_t>& tokens) {
    for (const int32_t token : tokens) {
      if (token == call_) open_ = false;
      if (token == think_) open_ = true;
      if (open_) ++count_;
      if (token == end_think_) open_ = false;
    }
  }
  int64_t count() const { return count_; }

 private:
  std::optional<int32_t> think_, end_think_, call_;
  bool open_;
  int64_t count_ = 0;
};

}  // namespace nibble::serve
