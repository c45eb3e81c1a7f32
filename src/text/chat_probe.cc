#include "text/chat_probe.h"

#include <algorithm>

namespace nibble::text {
namespace {

// A word that no template contains.
constexpr const char* kMark = "nibbleprobe";

Json message(const char* role, const char* content) {
  return {{"role", role}, {"content", content}};
}

bool shows_mark(const ChatTemplate& chat, const Json& messages, const Json& tools = nullptr) {
  const auto rendered = chat.render(messages, tools);
  return rendered.ok() && rendered->text.find(kMark) != std::string::npos;
}

Json with_call(Json arguments) {
  Json call = {{"type", "function"}, {"function", {{"name", "f"}, {"arguments", std::move(arguments)}}}};
  Json assistant = message("assistant", "");
  assistant["tool_calls"] = Json::array({std::move(call)});
  return Json::array({message("user", "u"), std::move(assistant), message("tool", "t")});
}

Dialect dialect_of(const std::string& source) {
  const auto has = [&](const char* text) { return source.find(text) != std::string::npos; };
  if (has("<function=")) return Dialect::xml;
  if (has("{\"name\"") || has("{\\\"name\\\"")) return Dialect::hermes;
  return Dialect::none;
}

bool marks_generation(const ChatTemplate& chat) {
  const auto rendered = chat.render(Json::array({message("user", "u"), message("assistant", "a")}), nullptr);
  return rendered.ok() && std::any_of(rendered->pieces.begin(), rendered->pieces.end(),
                                      [](const Piece& piece) { return piece.generation; });
}

}  // namespace

TemplateTraits probe(const ChatTemplate& chat) {
  TemplateTraits traits;
  const Json user = message("user", "u");
  traits.renders_late_system = shows_mark(chat, Json::array({user, message("system", kMark)}));
  traits.renders_developer = shows_mark(chat, Json::array({message("developer", kMark), user}));
  traits.accepts_string_arguments = shows_mark(chat, with_call(std::string("{\"x\": \"") + kMark + "\"}"));
  const bool renders_user = chat.render(Json::array({user}), nullptr).ok();
  traits.needs_user = renders_user && !chat.render(Json::array({message("system", "s")}), nullptr).ok();
  const Json tool = {{"type", "function"},
                     {"function", {{"name", kMark}, {"description", "d"}, {"parameters", {{"type", "object"}}}}}};
  traits.reads_tools = shows_mark(chat, Json::array({user}), Json::array({tool}));
  traits.has_generation_blocks = marks_generation(chat);
  traits.dialect = dialect_of(chat.source());
  return traits;
}

}  // namespace nibble::text
