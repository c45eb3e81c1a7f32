#include "synth/salvage.h"

#include "text/json_scanner.h"

namespace nibble::synth {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";

// The end of the JSON object that begins at `at`, or npos where the text is none from there on.
size_t object_end(std::string_view text, size_t at) {
  text::JsonScanner scanner;
  for (size_t i = at; i < text.size();) {
    if (const size_t plain = scanner.plain_run(text.substr(i)); plain > 0) {
      i += plain;
      continue;
    }
    if (!scanner.push(text[i++]).ok) return std::string_view::npos;
    if (scanner.depth() == 0) return i;
  }
  return std::string_view::npos;
}

// Whether a conversation begins at the { of `at`: its first key is "messages".
bool begins_conversation(std::string_view text, size_t at) {
  constexpr std::string_view kBlank = " \t\r\n", kKey = "\"messages\"";
  const size_t key = text.find_first_not_of(kBlank, at + 1);
  return key != std::string_view::npos && text.substr(key, kKey.size()) == kKey;
}

// Takes the conversations of a whole value: the value itself, or those in its arrays.
void take(const Json& value, std::vector<Json>& rows) {
  if (value.is_object() && value.contains("messages") && value["messages"].is_array()) {
    rows.push_back(value);
    return;
  }
  if (!value.is_structured()) return;
  for (const Json& item : value) take(item, rows);
}

}  // namespace

Salvaged salvage(std::string_view text) {
  Salvaged out;
  const size_t first = text.find_first_not_of(" \t\r\n");
  size_t at = 0;
  if (first != std::string_view::npos && text.substr(first, kOpen.size()) == kOpen) {
    const size_t close = text.find(kClose, first);
    if (close != std::string_view::npos) at = close + kClose.size();
  }
  while ((at = text.find('{', at)) != std::string_view::npos) {
    const size_t end = object_end(text, at);
    const auto json = end == std::string_view::npos ? Result<Json>(corrupt("broken"))
                                                    : parse_json(text.substr(at, end - at), "conversation");
    if (json.ok()) {
      take(*json, out.rows);
      at = end;
    } else {
      if (begins_conversation(text, at)) ++out.broken;
      ++at;  // what is broken may hold whole ones
    }
  }
  return out;
}

}  // namespace nibble::synth
