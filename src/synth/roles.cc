#include "synth/roles.h"

#include "synth/conversation.h"
#include "synth/validate.h"

namespace nibble::synth {
namespace {

bool is_blank(const Json& message) {
  return message["content"].get_ref<const std::string&>().find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

std::vector<Fault> role_faults(const Json& messages, Range turns) {
  std::vector<Fault> faults;
  enum class Next : uint8_t { user, assistant, tool } next = Next::user;
  int64_t open_calls = 0, said = 0;
  const auto order = [&](size_t i, const std::string& role) {
    const char* expected = next == Next::user        ? "the user"
                           : next == Next::assistant ? "the assistant"
                                                     : "the result of a call";
    faults.push_back({"order", fmt::format("message {}: expected {}, got {}", i, expected, role)});
  };
  for (size_t i = 0; i < messages.size() && faults.empty(); ++i) {
    const Json& message = messages[i];
    const auto role = message["role"].get<std::string>();
    if (role == "system" && i == 0) continue;
    if (role == "user") {
      if (next != Next::user) order(i, role);
      if (is_blank(message)) faults.push_back({"shape", fmt::format("message {}: an empty text of the user", i)});
      next = Next::assistant;
      ++said;
    } else if (role == "assistant") {
      if (next != Next::assistant) order(i, role);
      open_calls = count_calls(Json::array({message}));
      if (open_calls == 0 && is_blank(message)) {
        faults.push_back({"shape", fmt::format("message {}: an empty message of the assistant", i)});
      }
      next = open_calls > 0 ? Next::tool : Next::user;
    } else if (role == "tool") {
      if (next != Next::tool) order(i, role);
      if (--open_calls <= 0) next = Next::assistant;
    } else {
      faults.push_back({"shape", fmt::format("message {}: expected user, assistant or tool, got {}", i, role)});
    }
  }
  if (!faults.empty()) return faults;
  if (said == 0 || next != Next::user) {
    faults.push_back({"order", "expected a reply of the assistant without calls at the end"});
  } else if (!turns.holds(said)) {
    faults.push_back(
        {"turns", fmt::format("{} turns of the user where {} to {} are asked for", said, turns.low, turns.high)});
  }
  return faults;
}

}  // namespace nibble::synth
