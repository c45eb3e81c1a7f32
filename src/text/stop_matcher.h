// Stop strings over a stream of content. The first byte that completes any of them ends the text; of those that it
// completes the longest counts, so the text is cut at the earliest place. The result does not depend on how the stream
// is cut into feeds.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

/// Holds back exactly the longest suffix of the stream that is the start of a stop string. Linear: per byte as many
/// steps as there are stop strings. Not thread-safe.
class StopMatcher {
 public:
  /// Empty strings among `stops` are ignored. `include_stop`: the stop string that ends the text belongs to it.
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  /// Appends to `out` what can no longer become part of a stop string. True once one has been found; what is fed
  /// afterwards is dropped.
  bool feed(std::string_view content, std::string& out);

  /// The stream ended: appends what was held back.
  void finish(std::string& out);

  /// The stop string that ended the text.
  std::optional<std::string_view> found() const;

 private:
  // Knuth, Morris, Pratt: `matched` bytes at the start of `text` are the end of the stream so far.
  struct Pattern {
    std::string text;
    std::vector<size_t> failure;  // [n]: length of the longest proper prefix of text[0, n) that is also its suffix
    size_t matched = 0;

    void push(char c);
  };

  std::vector<Pattern> patterns_;
  bool include_stop_;
  std::string held_;
  std::optional<size_t> found_;  // index of the pattern
};

}  // namespace nibble::text
