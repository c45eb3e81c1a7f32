// Parser: tokens to syntax tree.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace nibble::text::jinja {

/// The statements of a template. Throws jinja::Error naming the line; filters and tests are looked up here, so an
/// unknown one is an error of the template even where it is never reached.
Block parse(std::string_view source);

}  // namespace nibble::text::jinja
