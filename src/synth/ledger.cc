#include "synth/ledger.h"

#include <algorithm>
#include <cmath>

namespace nibble::synth {

double Ledger::price(int64_t prompt_tokens, int64_t completion_tokens) const {
  return (static_cast<double>(prompt_tokens) * prices_.input_per_million +
          static_cast<double>(completion_tokens) * prices_.output_per_million) /
         1e6;
}

std::optional<int64_t> Ledger::reserve(int64_t prompt_tokens, int64_t wanted) {
  int64_t granted = wanted;
  if (budget_.tokens > 0) {
    granted = std::min(granted, budget_.tokens - spent_.tokens() - reserved_prompt_ - reserved_answer_ - prompt_tokens);
  }
  if (budget_.cost > 0 && prices_.output_per_million > 0) {
    const double left = budget_.cost - spent_.cost - price(reserved_prompt_ + prompt_tokens, reserved_answer_);
    granted = std::min(granted, static_cast<int64_t>(std::floor(left / prices_.output_per_million * 1e6)));
  } else if (budget_.cost > 0 && spent_.cost + price(reserved_prompt_ + prompt_tokens, 0) > budget_.cost) {
    return std::nullopt;
  }
  if (granted < std::min(wanted, kLeastAnswer)) return std::nullopt;
  reserved_prompt_ += prompt_tokens;
  reserved_answer_ += granted;
  return granted;
}

void Ledger::settle(int64_t prompt_tokens, int64_t granted) {
  reserved_prompt_ -= prompt_tokens;
  reserved_answer_ -= granted;
}

void Ledger::add(int64_t prompt_tokens, int64_t completion_tokens) {
  ++spent_.requests;
  spent_.prompt_tokens += prompt_tokens;
  spent_.completion_tokens += completion_tokens;
  spent_.cost += price(prompt_tokens, completion_tokens);
}

}  // namespace nibble::synth
