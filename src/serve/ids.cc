#include "serve/ids.h"

#include <openssl/rand.h>

#include <algorithm>
#include <array>

#include "base/check.h"

namespace nibble::serve {

std::string make_id(std::string_view prefix) {
  static constexpr std::string_view kAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::array<unsigned char, 24> random;
  NIBBLE_CHECK(RAND_bytes(random.data(), static_cast<int>(random.size())) == 1);
  std::string id(prefix);
  for (const unsigned char byte : random) id += kAlphabet[byte % kAlphabet.size()];
  return id;
}

bool is_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::ranges::all_of(id, [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace nibble::serve
