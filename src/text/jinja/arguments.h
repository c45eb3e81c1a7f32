// Arguments of filters, tests, methods and functions, matched to their parameters.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// One pointer per name in `names`, null where the argument is absent. Throws on too many, unknown or doubled arguments
/// and when one of the first `required` is missing. The pointers live as long as `args`.
std::vector<const Value*> bind(std::string_view callee, const CallArgs& args,
                               std::initializer_list<std::string_view> names, size_t required = 0);

/// The argument's value, or `otherwise` where it is absent. Throws if it is of another type.
int64_t integer_or(const Value* argument, int64_t otherwise);
bool truth_or(const Value* argument, bool otherwise);
const Str& string_of(const Value& argument);

}  // namespace nibble::text::jinja
