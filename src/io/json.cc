#include "io/json.h"

#include "io/json_builder.h"

namespace nibble {

Result<Json> parse_json(std::string_view text, std::string_view what, JsonLimits limits) {
  if (text.size() > limits.max_bytes) {
    return corrupt("{}: expected at most {} bytes of JSON, got {}", what, limits.max_bytes, text.size());
  }
  Json root;
  JsonBuilder builder(root, limits);
  if (!Json::sax_parse(text, &builder)) return corrupt("{}: expected valid JSON, got {}", what, builder.error);
  return root;
}

const Json* find_value(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

}  // namespace nibble
