// JSON from strangers: bounded depth, no duplicate keys, one error form. Key order is kept, because templates print it.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace nibble {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  int max_depth = 64;
  size_t max_keys = 16384;  // of one object: looking one up is linear
  size_t max_bytes = size_t{64} << 20;
};

/// Parses one JSON document. `what` names it in the error: "corrupt: config.json: expected valid JSON, got …".
/// For documents with larger objects derive a SAX handler from JsonBuilder (json_builder.h).
Result<Json> parse_json(std::string_view text, std::string_view what, JsonLimits limits = {});

/// The value of a key; nullptr when it is absent or null.
const Json* find_value(const Json& object, const char* key);

}  // namespace nibble
