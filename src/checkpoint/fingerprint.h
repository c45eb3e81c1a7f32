// A short name for what a model is made of, so that reports about two models cannot be confused.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace nibble::checkpoint {

/// SHA-256 over the parts, one after the other, in 64 hex digits.
std::string sha256(std::span<const std::string_view> parts);

/// Its first 8 digits.
std::string fingerprint(std::span<const std::string_view> parts);

}  // namespace nibble::checkpoint
