// Progress: how long work tells its caller where it stands. The core never prints; cli/ draws a bar with an ETA.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace nibble {

struct ProgressUpdate {
  uint64_t done = 0, total = 0;  // in units of the work: bytes, tokens, cases
  std::string_view what;         // the item at hand: a tensor, a file
};

/// May be empty: then nobody listens.
using Progress = std::function<void(const ProgressUpdate&)>;

inline void report(const Progress& progress, uint64_t done, uint64_t total, std::string_view what) {
  if (progress) progress({done, total, what});
}

}  // namespace nibble
