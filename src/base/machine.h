// What this machine calls itself, for reports: a speed without its machine says nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

/// "AMD EPYC, x86_64, 2 cores".
std::string machine_name();

/// Memory that programs can still take without swapping, of the whole machine. Absent where the system does not say.
std::optional<uint64_t> available_memory_bytes();
/// The same, read from the text of /proc/meminfo.
std::optional<uint64_t> available_memory_in(std::string_view meminfo);

/// The largest resident set of this process so far.
uint64_t peak_memory_bytes();

}  // namespace nibble
