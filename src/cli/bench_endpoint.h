// nibble bench --endpoint: the part of the command that measures a server.
#pragma once

#include "cli/command.h"
#include "cli/local_server.h"
#include "gate/speed_bench.h"

namespace nibble::cli {

struct EndpointBenchFlags {
  ServerFlags server;
  bool http = false;  // server.model is served on loopback and measured through it
  bool quick = false, ignore_eos = false;
  std::string thinking = "off";
  std::vector<std::string> sweeps;
  int64_t seed = 0;  // 0: of the clock
  double first_token_s = 120;
  gate::SpeedOptions options;
  Path output;

  bool wanted() const { return http || !server.endpoint.empty(); }
};

void add_endpoint_bench_flags(CLI::App& command, EndpointBenchFlags& flags);

/// Measures, prints and writes; the exit code of the command: 0, or 2 when requests failed. What was measured before an
/// error or Ctrl-C is printed and written, too.
Result<int> bench_endpoint(EndpointBenchFlags flags, bool json);

}  // namespace nibble::cli
