#include "text/tag_scanner.h"

#include <array>

namespace nibble::text {
namespace {

constexpr std::array<std::string_view, 8> kTexts = {
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>",
};

}  // namespace

std::string_view text_of(Tag tag) {
  return kTexts[static_cast<size_t>(tag)];
}

TagScanner::Step TagScanner::push(char c, TagSet wanted) {
  released_ = {};
  if (length_ > 0) {
    TagSet next;
    for (TagSet left = candidates_; !left.empty(); left.remove(left.first())) {
      const std::string_view text = text_of(left.first());
      if (text[length_] != c) continue;
      if (text.size() == length_ + 1u) {
        tag_ = left.first();
        length_ = 0;
        return Step::tag;
      }
      next.add(left.first());
    }
    if (!next.empty()) {
      candidates_ = next;
      ++length_;
      return Step::held;
    }
    released_ = take();
  }
  if (c != '<' || wanted.empty()) return Step::text;
  candidates_ = wanted;
  length_ = 1;
  return Step::held;
}

std::string_view TagScanner::take() {
  const std::string_view bytes = held();
  length_ = 0;
  return bytes;
}

std::string_view TagScanner::held() const {
  return length_ == 0 ? std::string_view() : text_of(candidates_.first()).substr(0, length_);
}

}  // namespace nibble::text
