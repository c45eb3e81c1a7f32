// How the template engine gives up. The only exception of this room; it never leaves the engine: Template::parse and
// Template::render (template.h) turn it into a Status that names template and line.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string>
#include <utility>

#include "base/result.h"

namespace nibble::text::jinja {

class Error : public std::exception {
 public:
  /// `line` 0 means: the line at which the interpreter stands.
  Error(Code code, std::string message, int line = 0) : code_(code), message_(std::move(message)), line_(line) {}

  const char* what() const noexcept override { return message_.c_str(); }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  int line() const { return line_; }

 private:
  Code code_;
  std::string message_;
  int line_;
};

/// The template and its input do not go together: what Python would have raised.
template <class... A>
[[noreturn]] void raise(fmt::format_string<A...> format, A&&... args) {
  throw Error(Code::invalid_argument, fmt::format(format, std::forward<A>(args)...));
}

/// Jinja that this engine does not speak.
template <class... A>
[[noreturn]] void raise_unsupported(fmt::format_string<A...> format, A&&... args) {
  throw Error(Code::unsupported, fmt::format(format, std::forward<A>(args)...));
}

}  // namespace nibble::text::jinja
