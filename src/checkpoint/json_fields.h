// Reading single fields of config files, with errors that name field and file. Internal to checkpoint/.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "io/json.h"

namespace nibble::checkpoint {

/// The string under `key`, or an empty one where there is none; `corrupt` for other types.
inline Result<std::string> string_field(const Json& object, const char* key, const char* where) {
  const Json* value = find_value(object, key);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return corrupt("{}: expected a string, got {} ({})", key, value->type_name(), where);
  return value->get<std::string>();
}

/// The value as a message shows it: whole when it is short.
inline std::string shown(const Json* value) {
  if (value == nullptr) return "none";
  return value->is_primitive() ? value->dump(-1, ' ', false, Json::error_handler_t::replace) : value->type_name();
}

/// `corrupt` unless the field is there and has this value.
inline Status require_field(const Json& object, const char* key, const Json& value, std::string_view where) {
  const Json* found = find_value(object, key);
  if (found != nullptr && *found == value) return {};
  return corrupt("{}: expected {}, got {} ({})", key, value.dump(), shown(found), where);
}

}  // namespace nibble::checkpoint
