// A part of a text.
#pragma once

#include <cstddef>
#include <string_view>

namespace nibble::text {

/// Bytes [begin, end) of a text.
struct Span {
  size_t begin = std::string_view::npos, end = std::string_view::npos;

  bool found() const { return begin != std::string_view::npos; }  // false for a group that took no part in a match
  std::string_view of(std::string_view text) const {
    return found() ? text.substr(begin, end - begin) : std::string_view();
  }
  bool operator==(const Span&) const = default;
};

}  // namespace nibble::text
