#include "text/chat_template.h"

#include <algorithm>
#include <array>

#include "text/chat_probe.h"
#include "text/jinja/error.h"

namespace nibble::text {
namespace {

constexpr std::array<std::string_view, 7> kSpecialTokens = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                            "pad_token", "cls_token", "mask_token"};
constexpr std::array<std::string_view, 12> kReserved = {
    "messages",        "tools",        "documents", "add_generation_prompt",
    "raise_exception", "strftime_now", "range",     "dict",
    "namespace",       "loop",         "caller",    "self"};

// A special token stands in tokenizer_config.json as a string or as {"content": …}.
Json special_tokens(const Json& config) {
  Json special = Json::object();
  for (const std::string_view key : kSpecialTokens) {
    const auto found = config.find(key);
    if (found == config.end()) continue;
    if (found->is_string()) special[std::string(key)] = *found;
    if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
      special[std::string(key)] = (*found)["content"];
    }
  }
  return special;
}

// The template text in tokenizer_config.json; null if there is none.
const std::string* template_of(const Json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return nullptr;
  if (found->is_string()) return found->get_ptr<const std::string*>();
  if (!found->is_array()) return nullptr;
  for (const Json& entry : *found) {
    if (!entry.is_object() || entry.value("name", Json()) != "default") continue;
    const auto text = entry.find("template");
    if (text != entry.end() && text->is_string()) return text->get_ptr<const std::string*>();
  }
  return nullptr;
}

Rendered to_rendered(const jinja::Str& text) {
  Rendered rendered;
  rendered.text = text.bytes();
  size_t begin = 0;
  for (const jinja::Str::Run& run : text.runs()) {
    rendered.pieces.push_back({run.origin, begin, run.end});
    begin = run.end;
  }
  return rendered;
}

Status check_arguments(const Json& messages, const Json& tools, const Json& kwargs) {
  if (!messages.is_array()) return invalid_argument("messages: expected an array, got {}", messages.type_name());
  if (!tools.is_null() && !tools.is_array()) {
    return invalid_argument("tools: expected an array or null, got {}", tools.type_name());
  }
  if (!kwargs.is_object()) {
    return invalid_argument("chat_template_kwargs: expected an object, got {}", kwargs.type_name());
  }
  for (const auto& [key, value] : kwargs.items()) {
    if (is_reserved_variable(key)) {
      return invalid_argument("chat_template_kwargs: {}: expected a variable of the template, got a reserved name",
                              key);
    }
    if (value.is_structured()) {
      return invalid_argument("chat_template_kwargs: {}: expected a string, number, boolean or null, got {}", key,
                              value.type_name());
    }
  }
  return {};
}

}  // namespace

const char* name(Dialect dialect) {
  switch (dialect) {
    case Dialect::none:
      return "none";
    case Dialect::hermes:
      return "hermes";
    case Dialect::xml:
      return "xml";
  }
  return "";
}

bool is_reserved_variable(std::string_view name) {
  return std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end() ||
         std::find(kSpecialTokens.begin(), kSpecialTokens.end(), name) != kSpecialTokens.end();
}

ChatTemplate::ChatTemplate(jinja::Template parsed, std::string source, Json special)
    : template_(std::move(parsed)), source_(std::move(source)), special_(std::move(special)) {}

Result<ChatTemplate> ChatTemplate::parse(std::string source, std::string name, Json special) {
  NIBBLE_TRY(parsed, jinja::Template::parse(source, std::move(name)));
  ChatTemplate result(std::move(parsed), std::move(source), std::move(special));
  for (const auto& free : result.template_.free_names()) {
    if (free.scalar && !is_reserved_variable(free.name)) result.free_variables_.push_back(free.name);
  }
  result.traits_ = probe(result);
  return result;
}

Result<ChatTemplate> ChatTemplate::load(const Path& dir) {
  Json config = Json::object();
  const Path config_path = dir / "tokenizer_config.json";
  auto config_text = read_file(config_path);
  if (config_text.ok()) {
    NIBBLE_TRY(parsed, parse_json(*config_text, config_path.string()));
    if (parsed.is_object()) config = std::move(parsed);
  } else if (config_text.status().code() != Code::not_found) {
    return config_text.status();
  }
  const Path file = dir / "chat_template.jinja";
  auto source = read_file(file);
  if (source.ok()) return parse(std::move(*source), file.string(), special_tokens(config));
  if (source.status().code() != Code::not_found) return source.status();
  const std::string* text = template_of(config);
  if (text == nullptr) {
    return not_found("chat template: expected chat_template.jinja, or a template in tokenizer_config.json ({})",
                     dir.string());
  }
  return parse(*text, config_path.string(), special_tokens(config));
}

jinja::Variables ChatTemplate::variables(const Json& messages, const Json& tools, const RenderOptions& options) const {
  using jinja::Value;
  std::vector<Value> list;
  for (const Json& message : messages) list.push_back(jinja::from_message(message, static_cast<int>(list.size())));
  jinja::Variables result;
  result.emplace_back("messages", Value::list(std::move(list)));
  result.emplace_back("tools", jinja::from_json(tools, {.field = Field::tools}));
  result.emplace_back("documents", Value::none());
  result.emplace_back("add_generation_prompt", Value::boolean(options.add_generation_prompt));
  for (const auto& [key, value] : special_.items()) result.emplace_back(key, jinja::from_json(value, {}));
  for (const auto& [key, value] : options.kwargs.items()) {
    if (std::find(free_variables_.begin(), free_variables_.end(), key) == free_variables_.end()) continue;
    result.emplace_back(key, jinja::from_json(value, {.field = Field::kwargs}));
  }
  return result;
}

Result<Rendered> ChatTemplate::render(const Json& messages, const Json& tools, const RenderOptions& options) const {
  NIBBLE_RETURN_IF_ERROR(check_arguments(messages, tools, options.kwargs));
  jinja::Variables globals;
  try {
    globals = variables(messages, tools, options);
  } catch (const jinja::Error& error) {  // an integer or a nesting that no template value holds
    return Status(error.code(), fmt::format("messages: {}", error.message()));
  }
  NIBBLE_TRY(text, template_.render(std::move(globals), options.limits));
  Rendered rendered = to_rendered(text);
  for (const Json& message : messages) {
    const bool named = message.is_object() && message.contains("role") && message["role"].is_string();
    rendered.roles.push_back(named ? message["role"].get<std::string>() : std::string());
  }
  return rendered;
}

bool reasoning_open(std::string_view rendered_text) {
  rendered_text.remove_suffix(jinja::trailing_space(rendered_text));
  return rendered_text.ends_with("<think>");
}

}  // namespace nibble::text
