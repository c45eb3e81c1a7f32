// FieldReader: the fields of one JSON object of a request, each read once with its type and range. The first thing
// that is wrong is kept and everything after it is skipped, so a schema reads as a list of its fields.
//
// An explicit null means absent. A field that nobody asked for is unknown: allowed, and reported by unknown().
#pragma once

#include <concepts>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "serve/errors.h"

namespace nibble::serve {

struct Range {
  double low, high;
  bool above_low = false;  // the low end itself is not allowed
};

class FieldReader {
 public:
  /// `where` is the path of the object inside the body, "" for the body itself. `object` must be an object.
  FieldReader(const Json& object, std::string where);

  /// The value, or null if absent; marks the field as known.
  const Json* find(std::string_view name);

  void boolean(std::string_view name, bool& out);
  void string(std::string_view name, size_t max_bytes, std::string& out);

  /// T is an integer or an optional of one; a float without a fraction counts as an integer.
  template <class T>
  void integer(std::string_view name, int64_t low, int64_t high, T& out) {
    if (const auto value = read_integer(name, low, high)) out = static_cast<typename Assigned<T>::type>(*value);
  }
  /// T is a float or an optional of one.
  template <class T>
  void number(std::string_view name, Range range, T& out) {
    if (const auto value = read_number(name, range)) out = static_cast<typename Assigned<T>::type>(*value);
  }

  /// Known, without effect here.
  void ignore(std::initializer_list<std::string_view> names);
  /// Known, and refused when present.
  void refuse(std::initializer_list<std::string_view> names);

  void fail(ApiError error);
  /// "expected EXPECTED, got VALUE" for this field.
  void fail_expected(std::string_view name, std::string_view expected, const Json& got);

  bool ok() const { return !error_; }
  const std::optional<ApiError>& error() const { return error_; }
  std::string path(std::string_view name) const;
  std::vector<std::string> unknown() const;

 private:
  template <class T>
  struct Assigned {
    using type = T;
  };
  template <class T>
  struct Assigned<std::optional<T>> {
    using type = T;
  };
  std::optional<int64_t> read_integer(std::string_view name, int64_t low, int64_t high);
  std::optional<double> read_number(std::string_view name, Range range);

  const Json& object_;
  std::string where_;
  std::vector<std::string_view> known_;
  std::optional<ApiError> error_;
};

/// The integer that a JSON value is, if it is one and fits; 3.0 is 3.
std::optional<int64_t> as_integer(const Json& value);

/// How a value is shown in an error: shortened, and never more than a line.
std::string shown(const Json& value);

/// Parses a request body: a JSON object of bounded depth and width.
std::optional<ApiError> parse_body(std::string_view body, Json& out);

}  // namespace nibble::serve
