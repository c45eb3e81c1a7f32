#include "text/dialect.h"

#include <array>
#include <utility>

namespace nibble::text {
namespace {

constexpr std::array<std::pair<ToolDialect, std::string_view>, 4> kNames = {{
    {ToolDialect::automatic, "auto"},
    {ToolDialect::hermes, "hermes"},
    {ToolDialect::qwen3_xml, "qwen3_xml"},
    {ToolDialect::none, "none"},
}};

}  // namespace

std::string_view name(ToolDialect dialect) {
  return kNames[static_cast<size_t>(dialect)].second;
}

std::optional<ToolDialect> dialect_named(std::string_view word) {
  for (const auto& [dialect, known] : kNames) {
    if (word == known) return dialect;
  }
  return std::nullopt;
}

ToolDialect dialect_of_template(std::string_view template_source) {
  const auto holds = [&](std::string_view text) { return template_source.find(text) != std::string_view::npos; };
  if (holds("<function=")) return ToolDialect::qwen3_xml;
  // Inside a Jinja string literal the quotes may be escaped.
  if (holds(R"({"name")") || holds(R"({\"name\")")) return ToolDialect::hermes;
  return ToolDialect::automatic;
}

}  // namespace nibble::text
