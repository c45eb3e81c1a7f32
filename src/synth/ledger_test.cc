#include "synth/ledger.h"

#include <gtest/gtest.h>

namespace nibble::synth {
namespace {

TEST(Ledger, CountsTokensAndMoney) {
  Ledger ledger({.input_per_million = 1, .output_per_million = 4}, {});
  EXPECT_EQ(ledger.reserve(100, 5000), 5000);
  ledger.settle(100, 5000);
  ledger.add(1000, 500);
  EXPECT_EQ(ledger.spent().tokens(), 1500);
  EXPECT_EQ(ledger.spent().requests, 1);
  EXPECT_DOUBLE_EQ(ledger.spent().cost, 0.003);
}

TEST(Ledger, ABudgetOfTokensIsNeverPassed) {
  Ledger ledger({}, {.tokens = 10'000});
  EXPECT_EQ(ledger.reserve(500, 4000), 4000);
  EXPECT_EQ(ledger.reserve(500, 4000), 4000);
  EXPECT_EQ(ledger.reserve(500, 4000), 500);  // what is left
  EXPECT_EQ(ledger.reserve(1, 4000), std::nullopt);
  ledger.settle(500, 4000);
  ledger.add(500, 100);
  EXPECT_EQ(ledger.reserve(500, 4000), 3400);
}

TEST(Ledger, ABudgetOfMoneyIsNeverPassed) {
  Ledger ledger({.input_per_million = 1000, .output_per_million = 2000}, {.cost = 10});
  EXPECT_EQ(ledger.reserve(2000, 8000), 4000);
  EXPECT_EQ(ledger.reserve(1, 8000), std::nullopt);
  ledger.settle(2000, 4000);
  ledger.add(2000, 1000);
  EXPECT_DOUBLE_EQ(ledger.spent().cost, 4);
  EXPECT_EQ(ledger.reserve(2000, 8000), 2000);
}

TEST(Ledger, ShortAnswersNeedNoMoreThanTheyWant) {
  Ledger ledger({}, {.tokens = 100});
  EXPECT_EQ(ledger.reserve(50, 20), 20);
  EXPECT_EQ(ledger.reserve(50, 20), std::nullopt);
}

}  // namespace
}  // namespace nibble::synth
