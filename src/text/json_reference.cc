#include "text/json_reference.h"

#include <algorithm>
#include <string>

namespace nibble::text {
namespace {

const Json* member(const Json& object, const std::string& key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

// One step of a JSON pointer (RFC 6901): "~1" stands for "/", "~0" for "~".
std::string unescape_pointer(std::string_view token) {
  std::string out;
  for (size_t i = 0; i < token.size(); ++i) {
    if (token[i] == '~' && i + 1 < token.size() && (token[i + 1] == '0' || token[i + 1] == '1')) {
      out += token[++i] == '0' ? '~' : '/';
    } else {
      out += token[i];
    }
  }
  return out;
}

}  // namespace

const Json* resolve_reference(std::string_view reference, const Json& root) {
  if (!reference.starts_with('#')) return nullptr;
  reference.remove_prefix(1);
  const Json* at = &root;
  while (at != nullptr && !reference.empty()) {
    if (reference.front() != '/') return nullptr;
    reference.remove_prefix(1);
    const std::string token = unescape_pointer(reference.substr(0, reference.find('/')));
    reference.remove_prefix(std::min(reference.find('/'), reference.size()));
    if (at->is_array()) {
      const bool index = !token.empty() && token.size() <= 6 && token.find_first_not_of("0123456789") == token.npos;
      at = index && std::stoul(token) < at->size() ? &(*at)[std::stoul(token)] : nullptr;
    } else {
      at = member(*at, token);
    }
  }
  return at;
}

}  // namespace nibble::text
