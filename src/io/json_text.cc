#include "io/json_text.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace nibble {
namespace {

void append_canonical(std::string& out, const Json& value) {
  if (value.is_array()) {
    out += '[';
    for (size_t i = 0; i < value.size(); ++i) {
      if (i > 0) out += ',';
      append_canonical(out, value[i]);
    }
    out += ']';
  } else if (value.is_object()) {
    std::vector<Json::const_iterator> members;
    for (auto it = value.begin(); it != value.end(); ++it) members.push_back(it);
    std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.key() < b.key(); });
    out += '{';
    for (size_t i = 0; i < members.size(); ++i) {
      if (i > 0) out += ',';
      out += compact_json(members[i].key()) + ':';
      append_canonical(out, *members[i]);
    }
    out += '}';
  } else if (value.is_number_float()) {
    const auto number = value.get<double>();
    const bool whole = std::trunc(number) == number && std::abs(number) < 0x1p63;
    out += whole ? std::to_string(static_cast<int64_t>(number)) : compact_json(value);
  } else {
    out += compact_json(value);
  }
}

}  // namespace

std::string compact_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string canonical_json(const Json& value) {
  std::string out;
  append_canonical(out, value);
  return out;
}

std::string brief_json(const Json& value) {
  constexpr size_t kBytes = 80;
  std::string text = compact_json(value);
  if (text.size() <= kBytes) return text;
  size_t end = kBytes;
  while ((static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

}  // namespace nibble
