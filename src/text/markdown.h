// Markdown removal, so that what a listener would hear can be examined: "**Shall I** use `web_search`?" asks.
#pragma once

#include <string>
#include <string_view>

namespace nibble::text {

/// The words of a Markdown text: emphasis and code marks, fences, heading, list and quote marks at the start of a line,
/// rules, table bars, link targets and HTML tags are removed; words, punctuation and line feeds stay. "2*3", "a_b" and
/// "a < b" are not markup. Linear time, any bytes.
std::string strip_markdown(std::string_view text);

}  // namespace nibble::text
