// Machines whose speed is told from the bytes that a token reads, without running there: what their memory gives and
// what their arithmetic could do. The one place for these figures.
#pragma once

#include <string_view>

namespace nibble::gate {

struct Machine {
  std::string_view name, title;
  double bytes_per_second;  // what a kernel gets, as measured
  std::string_view bytes_source;
  double nominal_bytes_per_second;
  int multiprocessors;  // of 128 lanes each
  double clock_hz;
  double bf16_flop_s, fp8_flop_s, fp4_flop_s;  // dense products; 0: there are none
  std::string_view flop_source;

  /// Instructions that its lanes can issue in a second.
  constexpr double lane_instructions_per_second() const { return multiprocessors * 128 * clock_hz; }
};

inline constexpr Machine kMachines[] = {
    {.name = "gb10",
     .title = "NVIDIA GB10 (DGX Spark)",
     .bytes_per_second = 240e9,
     .bytes_source = "88 % of nominal; others read 236 to 246 GB/s (baristahaus/ninfer-gb10, antirez/ds4 #773)",
     .nominal_bytes_per_second = 273e9,
     .multiprocessors = 48,
     .clock_hz = 2.4e9,
     .bf16_flop_s = 125e12,
     .fp8_flop_s = 250e12,
     .fp4_flop_s = 500e12,
     .flop_source = "nominal dense peaks; nobody here has sustained them"},
    {.name = "h200",
     .title = "NVIDIA H200",
     .bytes_per_second = 4.27e12,
     .bytes_source = "a copy, bytes read and written",
     .nominal_bytes_per_second = 4.8e12,
     .multiprocessors = 132,
     .clock_hz = 1.98e9,
     .bf16_flop_s = 784e12,
     .fp8_flop_s = 1568e12,
     .fp4_flop_s = 0,
     .flop_source = "BF16 products of 770 to 798 TFLOP/s measured, FP8 twice that"},
};

/// By name, or null.
constexpr const Machine* find_machine(std::string_view name) {
  for (const Machine& machine : kMachines) {
    if (machine.name == name) return &machine;
  }
  return nullptr;
}

}  // namespace nibble::gate
