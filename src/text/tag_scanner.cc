#include "text/tag_scanner.h"

namespace nibble::text {

TagScanner::Step TagScanner::push_tag(char c, TagSet wanted) {
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
