// The filters of a template: "value | name(arguments)".
//
//   text      trim upper lower title capitalize replace indent string safe
//   numbers   int float abs round
//   sequences length count first last join list reverse sort unique map select reject selectattr rejectattr
//   mappings  items dictsort
//   any       default d tojson
// Where jinja2 gives a generator, this engine gives a list.
#pragma once

#include <string_view>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

struct Filter {
  std::string_view name;
  Value (*apply)(const Value& input, const CallArgs& args, Budget& budget);
};

/// Null if there is none of that name.
const Filter* find_filter(std::string_view name);

}  // namespace nibble::text::jinja
