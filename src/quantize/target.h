// What a server can load, as far as a plan decides it.
#pragma once

#include <string_view>

#include "base/result.h"
#include "quantize/plan.h"

namespace nibble::quantize {

/// "vllm", "sglang" or "trtllm"; empty: nobody in particular. `unsupported` for what that server refuses or misreads,
/// with what to do instead.
Status check_target(const Plan& plan, checkpoint::Layout layout, std::string_view target);

}  // namespace nibble::quantize
