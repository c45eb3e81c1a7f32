// One HTML page that holds everything it shows: no scripts, no fonts, no requests; light or dark as the reader's system
// is. XML as well as HTML.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble {

/// The page around a body of sections. Figures and sections in <div class="grid"> stand beside each other.
std::string html_page(std::string_view title, std::string_view body);

/// A name and a value a line, escaped.
std::string html_facts(const std::vector<std::pair<std::string, std::string>>& rows);

/// A table with a head, escaped. Cells after the first are numbers and stand to the right.
std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows);

}  // namespace nibble
