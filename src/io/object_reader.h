// ObjectReader: the fields of one JSON object of a file, each read once with its type and range. The first thing that
// is wrong is kept and what follows it is skipped, so a schema reads as a list of its fields. A key that nobody asked
// for is wrong, too: what is not understood must not count as done.
#pragma once

#include <array>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/json.h"

namespace nibble {

/// A word of a file and what it stands for.
template <class E>
struct Word {
  std::string_view text;
  E value;
};

/// The word for a value; empty where there is none.
template <class E, size_t n>
std::string_view text_of(const Word<E> (&words)[n], E value) {
  for (const Word<E>& word : words) {
    if (word.value == value) return word.text;
  }
  return {};
}

class ObjectReader {
 public:
  /// `where` stands before every error. Anything but an object is the first error.
  ObjectReader(const Json& json, std::string where);

  /// The value, or null if absent; marks the key as known.
  const Json* value(const char* key);
  bool has(const char* key) const { return json_->is_object() && json_->contains(key); }

  /// Fields that may be missing: then `out` stays as it was.
  void text(const char* key, std::string& out);
  void flag(const char* key, bool& out);
  void number(const char* key, double low, double high, double& out);
  template <std::integral T>
  void whole_number(const char* key, int64_t low, int64_t high, T& out) {
    if (const auto read = read_integer(key, low, high)) out = static_cast<T>(*read);
  }
  void texts(const char* key, std::vector<std::string>& out);
  template <class E, size_t n>
  void word(const char* key, const Word<E> (&words)[n], E& out) {
    std::string expected = "one of ";
    for (const Word<E>& word : words) expected += (&word == words ? "" : ", ") + std::string(word.text);
    const Json* json = value(key);
    if (json == nullptr) return;
    for (const Word<E>& word : words) {
      if (json->is_string() && json->get_ref<const std::string&>() == word.text) {
        out = word.value;
        return;
      }
    }
    expected_of(key, expected, *json);
  }

  /// An error where the key is absent.
  void require(const char* key);
  /// "expected EXPECTED, got VALUE" for this key.
  void expected_of(const char* key, std::string_view expected, const Json& got);
  void fail(Status error);
  bool ok() const { return error_.ok(); }

  const std::string& where() const { return where_; }

  /// The first error; `corrupt` for a key that nobody asked for.
  Status finish();

 private:
  std::optional<int64_t> read_integer(const char* key, int64_t low, int64_t high);

  const Json* json_;
  std::string where_;
  std::vector<std::string> known_;
  Status error_;
};

}  // namespace nibble
