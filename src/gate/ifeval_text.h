// What the checkers of IFEval count in a text. Pure, linear, over valid UTF-8. Where a rule looks odd it is the
// benchmark's (google-research, instruction_following_eval), whose published numbers it must reproduce.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace nibble::gate {

/// Runs of letters, numbers and _.
Result<int64_t> count_ifeval_words(std::string_view text);

/// Words in capitals: a token with an upper-case letter and none of another case. Tokens end at white space, at quotes,
/// brackets, backticks and , ; : @ # $ % & ? ! and at "--", so what a hyphen or a slash joins is one; the ends 's 'm 'd
/// 'll 're 've n't of English words are tokens of their own ("DON'T" is two).
Result<int64_t> count_capital_words(std::string_view text);

/// Whether there is an upper-case letter and none of another case; the same of lower case.
Result<bool> is_all_upper(std::string_view text);
Result<bool> is_all_lower(std::string_view text);

/// Lines that begin with a * that no second one follows, or with a -.
int64_t count_bullets(std::string_view text);

/// [anything] inside a line.
int64_t count_placeholders(std::string_view text);

/// *something* and **something** inside a line, where something is more than blanks.
int64_t count_highlights(std::string_view text);

/// A line with <<something>>.
bool has_title(std::string_view text);

/// JSON, bare or in a code fence.
bool is_json_document(std::string_view text);

/// The parts between dividers, at least one.
std::vector<std::string_view> split_at(std::string_view text, std::string_view divider);

/// Parts between *** that are not blank; -1 where a blank one lies between two others.
int64_t count_divided_paragraphs(std::string_view text);

/// Two different parts divided by ******, with nothing but blanks before or behind further dividers.
bool has_two_responses(std::string_view text);

/// How many paragraphs, divided by an empty line, are not blank; and the word with which the n-th (from 1) begins, in
/// lower case, without quotes before it and up to the first of . , ? ! ' " in it. "" where there is no such paragraph.
struct NthParagraph {
  int64_t count;
  std::string first_word;
};
NthParagraph nth_paragraph(std::string_view text, int64_t n);

}  // namespace nibble::gate
