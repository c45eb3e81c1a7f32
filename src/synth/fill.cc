#include "synth/fill.h"

#include <vector>

namespace nibble::synth {
namespace {

constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz";
constexpr std::string_view kInside = "abcdefghijklmnopqrstuvwxyz0123456789_.";

std::string known(const Words& words) {
  std::string list;
  for (const auto& item : words) list += (list.empty() ? "" : ", ") + item.first;
  return list;
}

}  // namespace

Result<std::string> fill(std::string_view text, const Words& words) {
  std::string out;
  size_t from = 0;
  for (size_t open; (open = text.find('{', from)) != std::string_view::npos;) {
    out.append(text, from, open - from);
    const size_t end = text.find_first_not_of(kInside, open + 1);
    const bool is_word = end != std::string_view::npos && text[end] == '}' && end > open + 1 &&
                         kLetters.find(text[open + 1]) != std::string_view::npos;
    from = is_word ? end + 1 : open + 1;
    if (!is_word) {
      out += '{';
      continue;
    }
    const std::string_view word = text.substr(open + 1, end - open - 1);
    const auto value = words.find(word);
    if (value == words.end()) return not_found("expected a word of {}, got {{{}}}", known(words), word);
    out += value->second;
  }
  out.append(text, from);
  return out;
}

Result<Json> fill_json(const Json& json, const Words& words) {
  if (json.is_string()) {
    NIBBLE_TRY(text, fill(json.get_ref<const std::string&>(), words));
    return Json(std::move(text));
  }
  if (!json.is_structured()) return json;
  Json out = json;
  for (Json& item : out) {
    NIBBLE_TRY(filled, fill_json(item, words));
    item = std::move(filled);
  }
  return out;
}

}  // namespace nibble::synth
