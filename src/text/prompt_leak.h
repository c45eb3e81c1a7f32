// Replies that recite their instructions.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/detect.h"

namespace nibble::text {

/// prompt_leak: runs of at least eight words (words.h) of the reply of which all eight in a row also stand so in the
/// system prompt, case-folded. Each run is one hit. Pure, linear but for a logarithm; invalid_argument where `reply` is
/// not UTF-8.
Result<std::vector<Detection>> detect_prompt_leak(std::string_view reply, std::string_view system_prompt);

}  // namespace nibble::text
