#include "base/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/check.h"

namespace nibble {
namespace {

std::string to_hex(std::span<const unsigned char> digest) {
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  NIBBLE_CHECK(context_->evp != nullptr && EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

Sha256& Sha256::add(std::string_view part) {
  const uint64_t size = part.size();
  EVP_DigestUpdate(context_->evp, &size, sizeof size);
  EVP_DigestUpdate(context_->evp, part.data(), part.size());
  return *this;
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE] = {};
  unsigned size = 0;
  NIBBLE_CHECK(EVP_DigestFinal_ex(context_->evp, digest, &size) == 1);
  return to_hex({digest, size});
}

std::string sha256_of(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE] = {};
  unsigned size = 0;
  NIBBLE_CHECK(EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr) == 1);
  return to_hex({digest, size});
}

}  // namespace nibble
