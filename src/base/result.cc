#include "base/result.h"

namespace nibble {

const char* name(Code code) {
  switch (code) {
    case Code::ok:
      return "ok";
    case Code::invalid_argument:
      return "invalid argument";
    case Code::not_found:
      return "not found";
    case Code::corrupt:
      return "corrupt";
    case Code::unsupported:
      return "unsupported";
    case Code::io:
      return "io";
    case Code::out_of_memory:
      return "out of memory";
    case Code::device:
      return "device";
    case Code::unavailable:
      return "unavailable";
    case Code::cancelled:
      return "cancelled";
  }
  return "unknown";
}

std::string Status::text() const {
  if (ok()) return "ok";
  std::string text = fmt::format("{}: {}", name(code_), message_);
  if (!hint_.empty()) text += "\n  hint: " + hint_;
  return text;
}

}  // namespace nibble
