// The two ways in which Qwen3.5 models write a tool call:
//
//   hermes      <tool_call>\n{"name": "get_time", "arguments": {"city": "Pune"}}\n</tool_call>
//   qwen3_xml   <tool_call>\n<function=get_time>\n<parameter=city>\nPune\n</parameter>\n</function>\n</tool_call>
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble::text {

enum class ToolDialect : uint8_t {
  automatic,  // both, decided call by call; never swallows what the other dialect says
  hermes,
  qwen3_xml,
  none,  // no calls: every tag of a call is plain text
};

/// The word for flags and JSON fields: "auto", "hermes", "qwen3_xml", "none".
std::string_view name(ToolDialect dialect);

/// The inverse of name(); nothing for any other word.
std::optional<ToolDialect> dialect_named(std::string_view word);

/// The dialect that a chat template teaches its model: "<function=" in its source means XML, `{"name"` means Hermes,
/// neither means automatic.
ToolDialect dialect_of_template(std::string_view template_source);

}  // namespace nibble::text
