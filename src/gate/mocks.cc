#include "gate/mocks.h"

#include "gate/chat_stream.h"

namespace nibble::gate {
namespace {

Result<bool> matches(const Mock& mock, const Json& arguments) {
  for (const auto& [name, value] : mock.equal) {
    if (member(arguments, name.c_str()) != value) return false;
  }
  for (const auto& [name, pattern] : mock.search) {
    const Json& given = member(arguments, name.c_str());
    if (given.is_null()) return false;
    NIBBLE_TRY(hit, pattern.in(given.is_string() ? given.get<std::string>() : dump(given)));
    if (!hit) return false;
  }
  return true;
}

}  // namespace

Result<const Mock*> MockTools::answer(const ToolCall& call) {
  const auto arguments = parse_json(call.arguments, "arguments");
  for (size_t i = 0; i < mocks_.size(); ++i) {
    const Mock& mock = mocks_[i];
    if (mock.tool != call.name || (mock.times > 0 && used_[i] == mock.times)) continue;
    NIBBLE_TRY(fits, matches(mock, arguments.ok() ? *arguments : Json()));
    if (!fits) continue;
    ++used_[i];
    return &mock;
  }
  return nullptr;
}

}  // namespace nibble::gate
