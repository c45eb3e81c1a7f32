#include "base/result.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return invalid_argument("n: expected an even number, got {}", n).with_hint("double it");
  return n / 2;
}

Result<int> quarter(int n) {
  NIBBLE_TRY(h, half(n));
  return half(h);
}

TEST(Result, ValuePassesThrough) {
  EXPECT_EQ(*quarter(8), 2);
}

TEST(Result, ErrorStopsAtTheFirstTry) {
  const auto result = quarter(6);
  EXPECT_EQ(result.status().text(), "invalid argument: n: expected an even number, got 3\n  hint: double it");
}

TEST(ResultDeathTest, ReadingAMissingValueIsABug) {
  EXPECT_DEATH((void)*half(1), "check failed");
}

}  // namespace
}  // namespace nibble
