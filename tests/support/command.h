// Runs the real binary, as a user would.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/rng.h"

namespace nibble::test {

struct Outcome {
  int exit_code = 0;  // 128 + n when a signal n ended it
  std::string out, err;
};

/// Runs `nibble ARGUMENTS…` to its end. stdin is empty.
Outcome nibble_command(const std::vector<std::string>& arguments);

/// Starts `nibble ARGUMENTS…` without input and output and sends it a signal after so many seconds, counted from when
/// the file `begun` is there (empty: from the start); its exit code, or nothing when the signal ended it.
std::optional<int> nibble_signalled(const std::vector<std::string>& arguments, double seconds, int signal,
                                    const Path& begun = {});

/// Runs the command to its end, killed on the way: up to `kills` times it is started and gets SIGKILL at a moment drawn
/// from the first nine tenths of `whole_s`, what an undisturbed run takes; the last run is let be. How often it was
/// killed; -1 where a run ended with another exit code than 0.
int run_killed(const std::vector<std::string>& arguments, double whole_s, int kills, Rng& rng);

/// A folder of its own for one test, removed with everything in it at the end.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Path operator/(const Path& name) const { return dir_ / name; }
  const Path& path() const { return dir_; }

 private:
  Path dir_;
};

}  // namespace nibble::test
