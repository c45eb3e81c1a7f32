// What this machine calls itself, for reports: a speed without its machine says nothing.
#pragma once

#include <cstdint>
#include <string>

namespace nibble {

/// "AMD EPYC, x86_64, 2 cores".
std::string machine_name();

/// The largest resident set of this process so far.
uint64_t peak_memory_bytes();

}  // namespace nibble
