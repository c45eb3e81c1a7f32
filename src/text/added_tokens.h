// Added tokens: strings such as "<|im_start|>" that are found literally in text before anything else happens to it.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

struct AddedToken {
  int32_t id;
  std::string content;  // UTF-8, not empty
  bool special;         // a control token: left out of text meant for people
};

/// A trie over the contents. Built once, then const and safe from any thread.
class AddedTokenTrie {
 public:
  /// The contents differ from each other.
  explicit AddedTokenTrie(const std::vector<AddedToken>& tokens);

  struct Match {
    size_t at, size;
    int32_t id;
  };
  /// The leftmost match at or after `from`, the longest of those that begin there; {text.size(), 0, -1} if there is
  /// none. O(n * longest token).
  Match find(std::string_view text, size_t from) const;

  /// The token whose content is exactly this.
  std::optional<int32_t> id(std::string_view content) const;

 private:
  std::optional<uint32_t> child(uint32_t node, char byte) const;

  std::array<bool, 256> begins_{};                       // bytes that begin a token: most text is skipped by it
  std::vector<int32_t> ids_;                             // by node, -1 where no token ends; node 0 is the root
  boost::unordered_flat_map<uint64_t, uint32_t> edges_;  // node << 8 | byte
};

}  // namespace nibble::text
