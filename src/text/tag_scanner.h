// Finds the tags of model output in a stream of bytes.
//
// Every tag begins with '<' and holds no other '<', and none is the start of another. So at most one tag can be under
// way, a mismatch proves all of its bytes to be text, and one comparison per byte is enough.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace nibble::text {

enum class Tag : uint8_t {
  think_open,       // <think>
  think_close,      // </think>
  call_open,        // <tool_call>
  call_close,       // </tool_call>
  function_open,    // <function=      a name and '>' follow
  function_close,   // </function>
  parameter_open,   // <parameter=     a key and '>' follow
  parameter_close,  // </parameter>
};

inline constexpr std::array<std::string_view, 8> kTagTexts = {
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>",
};

constexpr std::string_view text_of(Tag tag) {
  return kTagTexts[static_cast<size_t>(tag)];
}

/// The tags that mean something in a state of the parser.
class TagSet {
 public:
  constexpr TagSet() = default;
  constexpr TagSet(std::initializer_list<Tag> tags) {
    for (const Tag tag : tags) bits_ |= bit(tag);
  }
  constexpr bool has(Tag tag) const { return (bits_ & bit(tag)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr void add(Tag tag) { bits_ |= bit(tag); }
  /// The first member; the set must not be empty.
  constexpr Tag first() const { return static_cast<Tag>(std::countr_zero(bits_)); }
  constexpr void remove(Tag tag) { bits_ &= static_cast<uint8_t>(~bit(tag)); }

 private:
  static constexpr uint8_t bit(Tag tag) { return static_cast<uint8_t>(1u << static_cast<unsigned>(tag)); }
  uint8_t bits_ = 0;
};

/// Holds back the longest suffix of the stream that is the start of a tag. Not thread-safe.
class TagScanner {
 public:
  enum class Step : uint8_t {
    text,  // the byte belongs to no tag
    held,  // the byte continues what may become a tag
    tag,   // the byte completed tag()
  };

  /// Reads one byte; `wanted` is looked at only where no tag is under way. Whatever the step, released() comes first.
  Step push(char c, TagSet wanted) {
    released_ = {};
    return length_ == 0 && c != '<' ? Step::text : push_tag(c, wanted);
  }

  /// Bytes held before the last push() that it proved to be text; they precede its byte.
  std::string_view released() const { return released_; }
  Tag tag() const { return tag_; }

  /// No tag is under way.
  bool idle() const { return length_ == 0; }

  /// Gives up the bytes held, at the end of a stream.
  std::string_view take();

 private:
  Step push_tag(char c, TagSet wanted);
  std::string_view held() const;

  TagSet candidates_;   // of the tag under way: those that agree with its first length_ bytes
  uint8_t length_ = 0;  // bytes held
  Tag tag_ = Tag::think_open;
  std::string_view released_;
};

}  // namespace nibble::text
