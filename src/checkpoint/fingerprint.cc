#include "checkpoint/fingerprint.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <memory>

#include "base/check.h"

namespace nibble::checkpoint {

std::string sha256(std::span<const std::string_view> parts) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  NIBBLE_CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  for (std::string_view part : parts) EVP_DigestUpdate(context.get(), part.data(), part.size());
  unsigned char digest[EVP_MAX_MD_SIZE] = {};
  NIBBLE_CHECK(EVP_DigestFinal_ex(context.get(), digest, nullptr) == 1);
  return fmt::format("{:02x}", fmt::join(digest, digest + 32, ""));
}

std::string fingerprint(std::span<const std::string_view> parts) {
  return sha256(parts).substr(0, 8);
}

}  // namespace nibble::checkpoint
