// Status and Result: how a door (file, JSON, network, flag, device memory) says that something went wrong.
//
// A message reads `what: where: expected …, got … (file)`; a hint says what to do about it. Rooms return these, only
// cli/ prints them. Our own bugs are not Status: they are NIBBLE_CHECK (check.h).
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"

namespace nibble {

enum class Code {
  ok,
  invalid_argument,  // the caller's input is wrong
  not_found,         // an answer, not a fault
  corrupt,           // foreign bytes break their format
  unsupported,       // valid, but beyond what this build does
  io,                // the operating system refused
  out_of_memory,
  device,
  unavailable,
  cancelled,
};

/// The word of the code as it stands before a message: "corrupt", "invalid argument", …
const char* name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::ok; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }

  Status&& with_hint(std::string hint) && {
    hint_ = std::move(hint);
    return std::move(*this);
  }

  /// "code: message" and, where there is one, a second line "  hint: …". For cli/ and for tests.
  std::string text() const;

 private:
  Code code_ = Code::ok;
  std::string message_;
  std::string hint_;
};

/// A value or the Status that explains its absence. Reading the value of a failed Result is a bug of ours.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) { NIBBLE_CHECK(!status_.ok()); }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  T& value() & {
    NIBBLE_CHECK(ok());
    return *value_;
  }
  const T& value() const& {
    NIBBLE_CHECK(ok());
    return *value_;
  }
  T&& value() && {
    NIBBLE_CHECK(ok());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

template <class... A>
Status fail(Code code, fmt::format_string<A...> format, A&&... args) {
  return {code, fmt::format(format, std::forward<A>(args)...)};
}

#define NIBBLE_STATUS_MAKER(word)                              \
  template <class... A>                                        \
  Status word(fmt::format_string<A...> format, A&&... args) {  \
    return fail(Code::word, format, std::forward<A>(args)...); \
  }
NIBBLE_STATUS_MAKER(invalid_argument)
NIBBLE_STATUS_MAKER(not_found)
NIBBLE_STATUS_MAKER(corrupt)
NIBBLE_STATUS_MAKER(unsupported)
NIBBLE_STATUS_MAKER(io)
NIBBLE_STATUS_MAKER(out_of_memory)
NIBBLE_STATUS_MAKER(unavailable)
NIBBLE_STATUS_MAKER(cancelled)
#undef NIBBLE_STATUS_MAKER

/// NIBBLE_TRY(x, expr): x becomes the value of the Result, or the enclosing function returns its Status.
#define NIBBLE_TRY(var, ...)                                       \
  auto var##_result = (__VA_ARGS__);                               \
  if (!var##_result.ok()) return std::move(var##_result).status(); \
  auto& var = *var##_result

/// NIBBLE_RETURN_IF_ERROR(expr): the same for an expression that yields a Status.
#define NIBBLE_RETURN_IF_ERROR(...) \
  if (::nibble::Status nibble_status = (__VA_ARGS__); !nibble_status.ok()) return nibble_status

}  // namespace nibble
