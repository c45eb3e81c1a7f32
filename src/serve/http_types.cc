#include "serve/http_types.h"

#include <algorithm>

namespace nibble::serve {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

}  // namespace

std::string_view find_header(const Headers& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (std::ranges::equal(key, name, [](char a, char b) { return lower(a) == lower(b); })) return value;
  }
  return {};
}

}  // namespace nibble::serve
