// How the commands talk to a person: tables, sizes, a progress bar with an ETA, and Ctrl-C.
#pragma once

#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/progress.h"
#include "io/json.h"

namespace nibble::cli {

/// "5.3 GB", "812 kB": decimal units, as disks and bandwidths are sold.
std::string human_bytes(uint64_t bytes);

/// Columns padded to their widest cell; the first row is the heading.
std::string table(const std::vector<std::vector<std::string>>& rows);

/// Words of others, which must not steer the terminal: control characters but newline and tab become "?".
std::string printable(std::string text);

/// One line on stderr, redrawn in place; nothing where stderr is not a terminal. The line is removed at the end.
class ProgressBar {
 public:
  explicit ProgressBar(std::string title, bool bytes = false) : title_(std::move(title)), bytes_(bytes) {}
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// Valid as long as the bar.
  Progress callback();

 private:
  void draw(const ProgressUpdate& update);

  std::string title_;
  bool bytes_, drawn_ = false;
  Stopwatch clock_;
  double last_draw_s_ = -1;
};

/// The token that the first Ctrl-C or SIGTERM sets; a second one ends the process at once.
CancelToken interrupt_token();

/// One JSON document on stdout, then a newline.
void print_json(const Json& json);

}  // namespace nibble::cli
