// Facts that a reply holds and its context does not: what a model makes up when its memory finds nothing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

/// The new facts of `text`, as they are first written in it, in order. A fact is
///   * a word (words.h) with a digit; commas between digits, leading zeros and the ending of "3rd" do not count;
///   * a number word from two on, "twenty five" as one: it is the same fact as its digits;
///   * a weekday, a month (may only where it is capitalised inside a sentence, march where it is capitalised), or a
///     time of day: today, tomorrow, tonight, morning, noon, …;
///   * a capitalised word that is not the first of its sentence, other than I.
/// `context` is all that the reply may draw on, in one text: system prompt, conversation, and the
/// strings and numbers in the results of tools. A fact is
/// known if the context holds its word, case-folded and without an s at its end ("Arun's", "Fridays"). Pure, linear.
std::vector<std::string> novel(std::string_view text, std::string_view context);

}  // namespace nibble::text
