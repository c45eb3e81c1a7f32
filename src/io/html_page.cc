#include "io/html_page.h"

#include <fmt/format.h>

#include "io/svg_plot.h"

namespace nibble {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2430; --faint: #667085; --line: #e3e7ee; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --ink: #e6e9ef; --faint: #9aa4b5; --line: #2b3240; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 1340px; padding: 24px; }
h1 { font-size: 22px; margin: 0 0 16px; } h2 { font-size: 16px; margin: 28px 0 8px; }
.grid { display: grid; gap: 20px; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); }
figure { border: 1px solid var(--line); border-radius: 8px; margin: 0; padding: 8px; } svg { display: block; width: 100%; }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid var(--line); padding: 4px 8px 4px 0;
  text-align: left; vertical-align: top; } th { color: var(--faint); font-weight: 400; }
.facts th { width: 40%; } .list td + td, .list th + th { text-align: right; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
)";

}  // namespace

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{0}</title>\n"
      "<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n{2}</body>\n</html>\n",
      xml_escape(title), kStyle, body);
}

std::string html_facts(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string out = "<table class=\"facts\">\n";
  for (const auto& [name, value] : rows) {
    out += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", xml_escape(name), xml_escape(value));
  }
  return out + "</table>\n";
}

std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<table class=\"list\">\n<tr>";
  for (const std::string& cell : head) out += fmt::format("<th>{}</th>", xml_escape(cell));
  out += "</tr>\n";
  for (const std::vector<std::string>& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += fmt::format("<td>{}</td>", xml_escape(cell));
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

}  // namespace nibble
