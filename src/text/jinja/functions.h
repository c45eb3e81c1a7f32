// The global functions of a template: raise_exception, range, namespace, dict.
#pragma once

#include <string_view>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// Null if there is none of that name. strftime_now is left out on purpose: a prompt must not depend on the clock, and
/// templates that use it carry a fallback.
const Function* find_function(std::string_view name);

}  // namespace nibble::text::jinja
