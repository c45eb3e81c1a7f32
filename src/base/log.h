// The log: spdlog on stderr, its level from NIBBLE_LOG (trace, debug, info, warn, error, off; default warn). It is the
// only environment variable nibble reads. Logs never hold prompt or reply text.
#pragma once

#include <spdlog/spdlog.h>

namespace nibble {

/// Called once by cli/ before anything else.
void init_log();

}  // namespace nibble
