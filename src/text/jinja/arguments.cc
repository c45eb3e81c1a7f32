#include "text/jinja/arguments.h"

#include <algorithm>

#include "text/jinja/error.h"

namespace nibble::text::jinja {

std::vector<const Value*> bind(std::string_view callee, const CallArgs& args,
                               std::initializer_list<std::string_view> names, size_t required) {
  std::vector<const Value*> bound(names.size(), nullptr);
  if (args.positional.size() > names.size()) {
    raise("{}() takes at most {} arguments ({} given)", callee, names.size(), args.positional.size());
  }
  for (size_t i = 0; i < args.positional.size(); ++i) bound[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto* const at = std::find(names.begin(), names.end(), name);
    if (at == names.end()) raise("{}() got an unexpected keyword argument '{}'", callee, name);
    const Value*& slot = bound[static_cast<size_t>(at - names.begin())];
    if (slot != nullptr) raise("{}() got multiple values for argument '{}'", callee, name);
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound[i] == nullptr) raise("{}() missing required argument '{}'", callee, names.begin()[i]);
  }
  return bound;
}

int64_t integer_or(const Value* argument, int64_t otherwise) {
  if (argument == nullptr) return otherwise;
  if (!argument->is_integral()) raise("expected an integer argument, got a {}", type_name(*argument));
  return argument->as_integral();
}

bool truth_or(const Value* argument, bool otherwise) {
  return argument == nullptr ? otherwise : truth(*argument);
}

const Str& string_of(const Value& argument) {
  if (argument.is_undefined()) raise("{}", argument.why_undefined());
  if (!argument.is_string()) raise("expected a str argument, got a {}", type_name(argument));
  return argument.as_str();
}

}  // namespace nibble::text::jinja
