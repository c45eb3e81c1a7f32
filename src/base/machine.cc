#include "base/machine.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <thread>

namespace nibble {

std::string machine_name() {
  utsname system{};
  ::uname(&system);
  std::string cpu = "CPU";  // AArch64 kernels give no model name
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name") && line.find(": ") != std::string::npos) {
      cpu = line.substr(line.find(": ") + 2);
      break;
    }
  }
  return fmt::format("{}, {}, {} cores", cpu, system.machine, std::thread::hardware_concurrency());
}

std::optional<uint64_t> available_memory_in(std::string_view meminfo) {
  constexpr std::string_view kKey = "MemAvailable:";
  while (!meminfo.starts_with(kKey)) {
    const size_t line_end = meminfo.find('\n');
    if (line_end == std::string_view::npos) return {};
    meminfo.remove_prefix(line_end + 1);
  }
  meminfo.remove_prefix(std::min(meminfo.size(), meminfo.find_first_not_of(' ', kKey.size())));
  uint64_t kibibytes = 0;
  const char* const end = meminfo.data() + meminfo.size();
  const auto [rest, error] = std::from_chars(meminfo.data(), end, kibibytes);
  const std::string_view unit(rest, static_cast<size_t>(end - rest));
  if (error != std::errc() || !unit.starts_with(" kB") || kibibytes > UINT64_MAX / 1024) return {};
  return kibibytes * 1024;
}

std::optional<uint64_t> available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  return available_memory_in(std::string(std::istreambuf_iterator<char>(file), {}));
}

uint64_t peak_memory_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace nibble
