#include "base/machine.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <fstream>
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

uint64_t peak_memory_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace nibble
