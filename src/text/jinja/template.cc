#include "text/jinja/template.h"

#include "text/jinja/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

constexpr size_t kMaxSourceBytes = size_t{1} << 20;

Status at_line(const std::string& name, int line, const Error& error) {
  return {error.code(), fmt::format("{}: line {}: {}", name, error.line() > 0 ? error.line() : line, error.message())};
}

}  // namespace

Result<Template> Template::parse(std::string_view source, std::string name) {
  if (source.size() > kMaxSourceBytes) {
    return corrupt("{}: expected at most {} bytes of template, got {}", name, kMaxSourceBytes, source.size());
  }
  if (!valid_utf8(source)) return corrupt("{}: expected valid UTF-8, got other bytes", name);
  Template result;
  result.name_ = std::move(name);
  try {
    result.block_ = std::make_shared<const Block>(jinja::parse(source));
  } catch (const Error& error) {
    return at_line(result.name_, 1, error);
  }
  return result;
}

Result<Str> Template::render(Variables variables, const RenderLimits& limits) const {
  Interpreter interpreter(std::move(variables), limits);
  try {
    return interpreter.run(*block_);
  } catch (const Error& error) {
    return at_line(name_, interpreter.line(), error);
  }
}

std::vector<Template::FreeName> Template::free_names() const {
  return find_free_names(*block_);
}

}  // namespace nibble::text::jinja
