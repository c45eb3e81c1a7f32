// The white space rules of a reply: blanks beside markup are dropped, and text on both sides of markup is joined by one
// line feed. Blanks are held until what follows them is known.
#pragma once

#include <string>
#include <string_view>

#include "text/blanks.h"
#include "text/parse_event.h"

namespace nibble::text {

/// Takes one of the two texts of a reply, content or reasoning, and writes its events.
class TextSink {
 public:
  /// `after_markup`: whether blanks at the very start are dropped.
  TextSink(ParseEvent::Kind kind, bool after_markup) : kind_(kind), after_markup_(after_markup) {}

  void text(std::string_view run, EventWriter& writer) {
    const size_t first = run.find_first_not_of(kBlanks);
    if (first == std::string_view::npos) {
      if (!after_markup_) blanks_ += run;
      return;
    }
    if (after_markup_) {
      run.remove_prefix(first);
      if (any_) writer.text(kind_, "\n");
    }
    const size_t end = run.find_last_not_of(kBlanks) + 1;
    writer.text(kind_, blanks_);
    writer.text(kind_, run.substr(0, end));
    blanks_ = run.substr(end);
    after_markup_ = false;
    any_ = true;
  }

  /// A tag, a call or a piece of the other text stands here.
  void markup() {
    blanks_.clear();
    after_markup_ = true;
  }

  /// The message ends here: blanks at its end belong to it.
  void finish(EventWriter& writer) {
    writer.text(kind_, blanks_);
    blanks_.clear();
  }

  /// Something other than blanks has been written.
  bool any() const { return any_; }
  /// Nothing but blanks came since the last markup, or since the start if that counts as markup.
  bool after_markup() const { return after_markup_; }

 private:
  ParseEvent::Kind kind_;
  bool after_markup_;
  bool any_ = false;
  std::string blanks_;
};

}  // namespace nibble::text
