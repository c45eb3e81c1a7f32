#include "text/utf8.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"

namespace nibble::text {
namespace {

// Code point by code point, from the definition of the encoding.
std::string encode(char32_t c) {
  const auto byte = [](char32_t v) { return static_cast<char>(static_cast<unsigned char>(v)); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xC0 | c >> 6), byte(0x80 | (c & 0x3F))};
  if (c < 0x10000) return {byte(0xE0 | c >> 12), byte(0x80 | (c >> 6 & 0x3F)), byte(0x80 | (c & 0x3F))};
  return {byte(0xF0 | c >> 18), byte(0x80 | (c >> 12 & 0x3F)), byte(0x80 | (c >> 6 & 0x3F)), byte(0x80 | (c & 0x3F))};
}

bool surrogate(char32_t c) {
  return c >= 0xD800 && c <= 0xDFFF;
}

TEST(Utf8, ReadsEveryScalarAndRefusesEverySurrogate) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    const std::string bytes = encode(c);
    const Utf8Unit unit = read_utf8(bytes);
    if (surrogate(c)) {
      ASSERT_EQ(unit.kind, Utf8Unit::Kind::invalid);
      continue;
    }
    ASSERT_EQ(unit.kind, Utf8Unit::Kind::scalar);
    ASSERT_EQ(unit.scalar, c);
    ASSERT_EQ(unit.size, bytes.size());
    for (size_t n = 1; n < bytes.size(); ++n) {
      ASSERT_EQ(read_utf8(bytes.substr(0, n)).kind, Utf8Unit::Kind::incomplete);
      ASSERT_EQ(complete_prefix(bytes.substr(0, n)), 0u);
    }
    ASSERT_EQ(complete_prefix(bytes), bytes.size());
  }
}

TEST(Utf8, ReplacesMaximalSubparts) {
  const std::string r(kReplacement);
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", ""},
      {"plain", "plain"},
      {"\x80", r},
      {"a\xFFz", "a" + r + "z"},
      {"\xC0\xAF", r + r},                  // overlong: C0 never begins a character
      {"\xE0\x80\xAF", r + r + r},          // overlong: E0 must be followed by A0..BF
      {"\xED\xA0\x80", r + r + r},          // a surrogate
      {"\xF4\x90\x80\x80", r + r + r + r},  // above U+10FFFF
      {"\xF0\x9F\x98", r},                  // cut short: one replacement
      {"\xF0\x9F\x98x", r + "x"},
      {"\xE2\x82\xE2\x82\xAC", r + "\xE2\x82\xAC"},
      // The example of the standard, section 3.9, table 3-8.
      {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "a" + r + r + r + "b" + r + "c" + r + r + "d"},
  };
  for (const auto& [bytes, text] : cases) {
    EXPECT_EQ(sanitize_utf8(bytes), text);
    EXPECT_EQ(valid_utf8(bytes), bytes == text);
  }
}

TEST(Utf8, CompletePrefixKeepsInvalidTails) {
  EXPECT_EQ(complete_prefix(""), 0u);
  EXPECT_EQ(complete_prefix("abc"), 3u);
  EXPECT_EQ(complete_prefix("ab\x80\x80\x80\x80"), 6u);  // stray bytes: nothing could complete them
  EXPECT_EQ(complete_prefix("ab\xC3"), 2u);
  EXPECT_EQ(complete_prefix("ab\xED\xA0"), 4u);  // a surrogate is broken already
  EXPECT_EQ(complete_prefix("ab\xF0\x9F\x98"), 2u);
  EXPECT_EQ(complete_prefix("ab\xF0\x9F\xC3"), 4u);  // the first is broken, the second may be completed
}

// Bytes that often are, or nearly are, well-formed.
std::string random_bytes(Rng& rng, size_t size) {
  static constexpr unsigned char kLikely[] = {0x41, 0x80, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xFF};
  std::string bytes;
  while (bytes.size() < size) bytes += static_cast<char>(kLikely[rng.below(sizeof kLikely)]);
  return bytes;
}

TEST(Utf8, SanitizedTextIsValidAndStreamsTheSame) {
  Rng rng(7);
  for (int i = 0; i < 20000; ++i) {
    const std::string bytes = random_bytes(rng, rng.below(12));
    const std::string whole = sanitize_utf8(bytes);
    ASSERT_TRUE(valid_utf8(whole));
    ASSERT_EQ(sanitize_utf8(whole), whole);

    std::string streamed, pending;
    for (const char byte : bytes) {
      pending += byte;
      const size_t ready = complete_prefix(pending);
      streamed += sanitize_utf8(pending.substr(0, ready));
      pending.erase(0, ready);
      ASSERT_LE(pending.size(), 3u);
    }
    ASSERT_EQ(streamed + sanitize_utf8(pending), whole);
  }
}

}  // namespace
}  // namespace nibble::text
