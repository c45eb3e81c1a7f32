// SHA-256.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

/// Over parts, each preceded by its length, so that no two lists of parts agree by concatenation.
class Sha256 {
 public:
  Sha256();
  ~Sha256();

  Sha256& add(std::string_view part);
  template <class T>
  Sha256& add_values(std::span<const T> values) {
    return add({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }
  /// 64 hex digits; once.
  std::string hex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

/// Of the text alone, as sha256sum prints it.
std::string sha256_of(std::string_view text);

}  // namespace nibble
