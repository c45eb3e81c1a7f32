#include "gate/call_match.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "gate/call_values.h"
#include "io/json_text.h"
#include "text/schema_types.h"

namespace nibble::gate {
namespace {

using text::TypeSet;

constexpr std::array<std::pair<TypeSet::Type, std::string_view>, 7> kTypeNames = {{
    {TypeSet::null, "null"},
    {TypeSet::integer, "an integer"},
    {TypeSet::number, "a number"},
    {TypeSet::boolean, "a boolean"},
    {TypeSet::object, "an object"},
    {TypeSet::array, "an array"},
    {TypeSet::string, "a string"},
}};

TypeSet::Type type_of(const Json& value) {
  if (value.is_null()) return TypeSet::null;
  if (value.is_boolean()) return TypeSet::boolean;
  if (value.is_number_integer()) return TypeSet::integer;
  if (value.is_number()) return TypeSet::number;
  if (value.is_object()) return TypeSet::object;
  return value.is_array() ? TypeSet::array : TypeSet::string;
}

bool accepts(TypeSet types, TypeSet::Type type) {
  return types.has(type) || (type == TypeSet::integer && types.has(TypeSet::number));
}

std::string names_of(TypeSet types) {
  std::string out;
  for (const auto& [type, name] : kTypeNames) {
    if (types.has(type)) out += (out.empty() ? "" : " or ") + std::string(name);
  }
  return out;
}

// The types that a schema names, with those words of BFCL that are none of JSON Schema. Empty: nothing is said, or in a
// word that nobody knows.
TypeSet types_named_by(const Json& schema, const Json& root) {
  const TypeSet said = text::schema_types(schema, root);
  if (!said.has(TypeSet::other)) return said;
  const Json* word = find_value(schema, "type");
  if (word == nullptr || !word->is_string()) return {};
  if (*word == "tuple") return TypeSet::array;
  return *word == "any" ? TypeSet(TypeSet::string) : TypeSet();
}

std::string sent_name(std::string_view function) {
  std::string name(function);
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

struct Parameter {
  std::string name;
  AllowedValues allowed;
  TypeSet types = {};     // none: any
  TypeSet elements = {};  // of an array
  bool unknown = false;   // to the tool: no call may give it
};

struct ExpectedCall {
  std::string function;  // as it is sent
  std::vector<Parameter> parameters;
  std::vector<std::string> required;  // by the tool's schema
};

// The type of the first allowed value that says one, as BFCL takes it.
std::optional<TypeSet::Type> first_type(const AllowedValues& allowed) {
  for (const AllowedValue& each : allowed) {
    if (each.is_nothing()) continue;
    if (each.regex || each.schema) return std::nullopt;
    return type_of(each.json);
  }
  return std::nullopt;
}

// BFCL takes an array whose elements have the type that the schema says, or that of the elements of an allowed array.
bool elements_fit(const Json& value, const Parameter& parameter) {
  if (!value.is_array() || parameter.elements.empty()) return true;
  return std::any_of(parameter.allowed.begin(), parameter.allowed.end(), [&](const AllowedValue& allowed) {
    if (!allowed.json.is_array()) return true;
    TypeSet types = parameter.elements;
    const auto said = std::find_if(allowed.json.begin(), allowed.json.end(), [](const Json& e) { return e != ""; });
    if (said != allowed.json.end()) types.add(type_of(*said));
    return std::all_of(value.begin(), value.end(), [&](const Json& e) { return accepts(types, type_of(e)); });
  });
}

using Mismatch = std::optional<CallMismatch>;

template <class... A>
CallMismatch fault(CallFault kind, fmt::format_string<A...> format, A&&... args) {
  return {kind, fmt::format(format, std::forward<A>(args)...)};
}

// One made call against one expected call.
class CallCheck {
 public:
  CallCheck(const ExpectedCall& expected, CallRules rules) : expected_(expected), rules_(rules) {}

  Result<Mismatch> run(const ToolCall& call) const {
    const std::string& function = expected_.function;
    if (sent_name(call.name) != function) {
      return Mismatch(fault(CallFault::name, "expected a call of {}, got {}", function, call.name));
    }
    const auto arguments = parse_json(call.arguments, "arguments");
    if (!arguments.ok() || !arguments->is_object()) {
      return Mismatch(fault(CallFault::type, "{}: expected arguments as a JSON object, got {}", function,
                            brief_json(arguments.ok() ? *arguments : Json(call.arguments))));
    }
    for (const std::string& name : expected_.required) {
      if (!arguments->contains(name)) return missing(name);
    }
    for (const auto& [name, value] : arguments->items()) {
      NIBBLE_TRY(mismatch, check(name, value));
      if (mismatch) return std::move(mismatch);
    }
    for (const Parameter& parameter : expected_.parameters) {
      if (!arguments->contains(parameter.name) && !may_be_missing(parameter.allowed)) return missing(parameter.name);
    }
    return Mismatch();
  }

 private:
  Mismatch missing(const std::string& name) const {
    return fault(CallFault::missing, "{}.{}: expected a value, got none", expected_.function, name);
  }

  Result<Mismatch> check(const std::string& name, const Json& value) const {
    const auto parameter = std::find_if(expected_.parameters.begin(), expected_.parameters.end(),
                                        [&](const Parameter& p) { return p.name == name; });
    if (parameter == expected_.parameters.end() || parameter->unknown) {
      return Mismatch(fault(CallFault::extra, "{}.{}: expected no such argument, got {}", expected_.function, name,
                            brief_json(value)));
    }
    const auto said = first_type(parameter->allowed);
    const bool variable = said && !parameter->types.empty() && !accepts(parameter->types, *said);
    if (!rules_.values_as_text) {
      const bool fits = parameter->types.empty() || accepts(parameter->types, type_of(value)) ||
                        (variable && type_of(value) == *said);
      if (!fits) return wrong_type(name, names_of(parameter->types), value);
      if (!elements_fit(value, *parameter))
        return wrong_type(name, "elements of " + names_of(parameter->elements), value);
    }
    const Strings strings = variable && !rules_.values_as_text ? Strings::exact : Strings::loose;
    NIBBLE_TRY(fits, is_allowed(value, parameter->allowed, strings));
    if (fits || (rules_.values_as_text && is_allowed_as_text(value, parameter->allowed))) return Mismatch();
    return Mismatch(fault(CallFault::value, "{}.{}: expected {}, got {}", expected_.function, name,
                          describe(parameter->allowed), brief_json(value)));
  }

  Mismatch wrong_type(const std::string& name, const std::string& expected, const Json& value) const {
    return fault(CallFault::type, "{}.{}: expected {}, got {}", expected_.function, name, expected, brief_json(value));
  }

  const ExpectedCall& expected_;
  CallRules rules_;
};

// Reads the expected calls of a recipe.
class Reader {
 public:
  Reader(const Json& tools, CallRules rules) : tools_(tools), rules_(rules) {}

  Result<ExpectedCall> call(const Json& json, const std::string& where) const {
    if (!json.is_object() || json.size() != 1) {
      return corrupt("{}: expected one function with its parameters, got {}", where, brief_json(json));
    }
    const std::string& function = json.begin().key();
    const std::string path = where + "." + function;
    const Json& parameters = json.front();
    if (!parameters.is_object()) return corrupt("{}: expected an object, got {}", path, parameters.type_name());
    const Json* definition = find_function(function);
    if (definition == nullptr) return corrupt("{}: expected a function of the tools, got another", path);

    ExpectedCall call{.function = sent_name(function), .parameters = {}, .required = {}};
    const Json* schema = find_value(*definition, "parameters");
    if (schema != nullptr && schema->is_object()) call.required = required(*schema);
    for (const auto& [name, values] : parameters.items()) {
      NIBBLE_TRY(parameter, read_parameter(name, values, schema, fmt::format("{}.{}", path, name)));
      call.parameters.push_back(std::move(parameter));
    }
    for (const std::string& name : call.required) {
      // No call could be right: the tool demands what the recipe does not allow.
      if (!rules_.unmeetable && !parameters.contains(name))
        return corrupt("{}: expected the required parameter {}, got none", path, name);
    }
    return call;
  }

 private:
  const Json* find_function(const std::string& name) const {
    if (!tools_.is_array()) return nullptr;
    for (const Json& tool : tools_) {
      const Json* function = tool.is_object() ? find_value(tool, "function") : nullptr;
      const Json* own = function != nullptr && function->is_object() ? find_value(*function, "name") : nullptr;
      if (own != nullptr && own->is_string() && sent_name(own->get_ref<const std::string&>()) == sent_name(name)) {
        return function;
      }
    }
    return nullptr;
  }

  static std::vector<std::string> required(const Json& schema) {
    std::vector<std::string> names;
    const Json* list = find_value(schema, "required");
    if (list == nullptr || !list->is_array()) return names;
    for (const Json& name : *list) {
      if (name.is_string()) names.push_back(name.get<std::string>());
    }
    return names;
  }

  Result<Parameter> read_parameter(const std::string& name, const Json& values, const Json* schema,
                                   const std::string& path) const {
    Parameter parameter{.name = name, .allowed = {}};
    if (rules_.unmeetable && values.is_array()) {
      for (const Json& value : values) {
        auto allowed = read_allowed_values(Json::array({value}), path);
        if (allowed.ok()) parameter.allowed.push_back(std::move(allowed->front()));
      }
    } else {
      NIBBLE_TRY(allowed, read_allowed_values(values, path));
      parameter.allowed = std::move(allowed);
    }
    const Json* properties = schema != nullptr && schema->is_object() ? find_value(*schema, "properties") : nullptr;
    if (properties == nullptr || !properties->is_object()) return parameter;
    const auto own = properties->find(name);
    if (own == properties->end()) {
      if (!rules_.unmeetable) return corrupt("{}: expected a parameter of the function, got another", path);
      parameter.unknown = true;
      return parameter;
    }
    parameter.types = types_named_by(*own, *schema);
    const Json* items = own->is_object() ? find_value(*own, "items") : nullptr;
    if (items != nullptr) parameter.elements = types_named_by(*items, *schema);
    return parameter;
  }

  const Json& tools_;
  CallRules rules_;
};

std::string list_names(std::span<const ToolCall> calls) {
  std::string out;
  for (const ToolCall& call : calls) out += (out.empty() ? "" : ", ") + call.name;
  return out;
}

}  // namespace

struct CallExpectation::Data {
  std::vector<ExpectedCall> calls;
  bool any = false;   // one of them, not all
  bool some = false;  // no matter which
  CallRules rules;
};

const char* name(CallFault fault) {
  constexpr std::array<const char*, 7> kNames = {"trigger", "count", "name", "missing", "extra", "type", "value"};
  return kNames.at(static_cast<size_t>(fault));
}

Result<CallExpectation> CallExpectation::all_of(const Json& expected, const Json& tools, std::string_view where,
                                                CallRules rules) {
  auto data = std::make_shared<Data>(Data{.calls = {}, .rules = rules});
  const Reader reader(tools, rules);
  if (!expected.is_array()) {
    NIBBLE_TRY(call, reader.call(expected, std::string(where)));
    data->calls.push_back(std::move(call));
    return CallExpectation(std::move(data));
  }
  if (expected.empty()) return corrupt("{}: expected a call, got none", where);
  for (size_t i = 0; i < expected.size(); ++i) {
    NIBBLE_TRY(call, reader.call(expected[i], fmt::format("{}[{}]", where, i)));
    data->calls.push_back(std::move(call));
  }
  return CallExpectation(std::move(data));
}

Result<CallExpectation> CallExpectation::any_of(const Json& expected, const Json& tools, std::string_view where,
                                                CallRules rules) {
  if (!expected.is_array()) return corrupt("{}: expected an array of calls, got {}", where, expected.type_name());
  NIBBLE_TRY(all, all_of(expected, tools, where, rules));
  auto data = std::make_shared<Data>(*all.data_);
  data->any = true;
  return CallExpectation(std::move(data));
}

CallExpectation CallExpectation::none() {
  return CallExpectation(std::make_shared<Data>());
}

CallExpectation CallExpectation::some() {
  return CallExpectation(std::make_shared<Data>(Data{.calls = {}, .some = true, .rules = {}}));
}

Result<std::optional<CallMismatch>> CallExpectation::mismatch(std::span<const ToolCall> calls) const {
  if (data_->some) {
    return calls.empty() ? Mismatch(fault(CallFault::trigger, "expected a call, got none")) : Mismatch();
  }
  const std::vector<ExpectedCall>& expected = data_->calls;
  const size_t count = data_->any ? 1 : expected.size();
  if (calls.empty() && count > 0) {
    return Mismatch(fault(CallFault::trigger, "expected a call of {}, got none", expected.front().function));
  }
  if (count == 0 && !calls.empty()) {
    return Mismatch(fault(CallFault::trigger, "expected no call, got {}", list_names(calls)));
  }
  if (calls.size() != count) {
    return Mismatch(fault(CallFault::count, "expected {} call{}, got {}: {}", count, count == 1 ? "" : "s",
                          calls.size(), list_names(calls)));
  }

  std::vector<bool> taken(calls.size(), false);
  Mismatch nearest;  // the further down the list of faults a call fails, the nearer it came
  for (const ExpectedCall& each : expected) {
    bool found = false;
    if (!data_->any) nearest.reset();
    for (size_t i = 0; i < calls.size() && !found; ++i) {
      if (taken[i]) continue;
      NIBBLE_TRY(mismatch, CallCheck(each, data_->rules).run(calls[i]));
      found = taken[i] = !mismatch;
      if (mismatch && (!nearest || mismatch->fault > nearest->fault)) nearest = std::move(mismatch);
    }
    if (found && data_->any) return Mismatch();
    if (!found && !data_->any) return nearest;
  }
  return data_->any ? nearest : Mismatch();
}

}  // namespace nibble::gate
