// The tests of a template: "value is name(arguments)".
#pragma once

#include <string_view>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

struct Test {
  std::string_view name;
  bool (*holds)(const Value& input, const CallArgs& args, Budget& budget);
};

/// Null if there is none of that name.
const Test* find_test(std::string_view name);

}  // namespace nibble::text::jinja
