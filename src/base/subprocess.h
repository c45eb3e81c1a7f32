// Another program, run to its end: text in, text out.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"

namespace nibble {

struct SubprocessOptions {
  double timeout_s = 0;                        // 0 = none
  size_t max_output_bytes = size_t{64} << 20;  // of standard output; of standard error the first 64 KiB are kept
  CancelToken cancel = {};                     // looked at every 20 ms
};

struct SubprocessResult {
  int exit_code = 0;  // 128 + n when signal n ended it
  std::string out, err;
};

/// Runs `words`, found in PATH, with `input` as its standard input and nothing but that between us: no shell looks at
/// the words. It gets a process group of its own, and whatever is left of that group is killed when this returns. A
/// program that does not read its input to the end is no error. Thread-safe.
///   not_found     no such program
///   unavailable   it took too long
///   corrupt       it wrote too much
///   cancelled
///   io            the operating system refused
Result<SubprocessResult> run_subprocess(const std::vector<std::string>& words, std::string_view input,
                                        const SubprocessOptions& options = {});

}  // namespace nibble
