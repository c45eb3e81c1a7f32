// A short name for what a model is made of, so that reports about two models cannot be confused.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace nibble::checkpoint {

/// The first 8 hex digits of SHA-256 over the parts, one after the other.
std::string fingerprint(std::span<const std::string_view> parts);

}  // namespace nibble::checkpoint
