#include "gate/decimal.h"

#include <gtest/gtest.h>

namespace nibble::gate {
namespace {

TEST(Decimal, LastNumberOfAText) {
  const std::pair<const char*, const char*> rows[] = {
      {"She has 3 boxes of 6, so 18.", "18"},
      {"It costs $1,250.50.", "1250.5"},
      {"18.0", "18"},
      {"018", "18"},
      {"0.50", "0.5"},
      {"about .5 of it", "0.5"},
      {"version v.5", "5"},
      {"That is -4 degrees", "-4"},
      {"a loss of -$20", "-20"},
      {"a loss of $-20", "-20"},
      {"10-4", "4"},
      {"f(x)-4", "4"},
      {"-0.0", "0"},
      {"**The result is 7**", "7"},
      {"\\boxed{72}", "72"},
      {"12, 13", "13"},
      {"1,00,000 rupees", "100000"},
      {"3.14.15", "15"},
      {"5%", "5"},
      {"18, as one sees", "18"},
      {"7 days, twenty hours", "7"},  // number words count for nothing
      {"00123456789012345678901234567890", "123456789012345678901234567890"},
  };
  for (const auto& [text, number] : rows) EXPECT_EQ(last_decimal(text), number) << text;
  for (const char* none : {"", "none", "-", "$", ".", ",", "\xFF"}) EXPECT_EQ(last_decimal(none), std::nullopt) << none;
}

TEST(Decimal, WholeTextOfOneNumber) {
  EXPECT_EQ(whole_decimal(" 1,080\n"), "1080");
  EXPECT_EQ(whole_decimal("-3.50"), "-3.5");
  EXPECT_EQ(whole_decimal("$5"), "5");
  for (const char* none : {"", "5 apples", "5.", "a 5", "1 2", "--5", "5-"}) {
    EXPECT_EQ(whole_decimal(none), std::nullopt) << none;
  }
}

}  // namespace
}  // namespace nibble::gate
