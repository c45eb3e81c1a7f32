#include "synth/demand.h"

#include <gtest/gtest.h>

#include <numeric>

namespace nibble::synth {
namespace {

TEST(Demand, AsksForMoreThanIsMissing) {
  Demand demand(90);
  EXPECT_EQ(demand.next(), 100);
  demand.add_round(100, 90);
  EXPECT_EQ(demand.missing(), 0);
  EXPECT_EQ(demand.next(), 0);
}

TEST(Demand, LearnsFromRejections) {
  Demand demand(100);
  demand.add_round(112, 50);
  EXPECT_EQ(demand.missing(), 50);
  EXPECT_GT(demand.next(), 90);  // half of it is expected to go
  demand.add_round(demand.next(), 50);
  EXPECT_EQ(demand.next(), 0);
}

TEST(Demand, IsBoundedWhereNothingComes) {
  Demand demand(10);
  for (int round = 1; round <= 50; ++round) {
    demand.add_round(demand.next(), 0);
    EXPECT_EQ(demand.dry_rounds(), round);
  }
  EXPECT_EQ(demand.next(), 10 * Demand::kMostPerRound);
  demand.add_round(80, 1);
  EXPECT_EQ(demand.dry_rounds(), 0);
}

TEST(Demand, BatchesCoverTheRows) {
  for (int64_t rows = 0; rows <= 223; ++rows) {
    const auto sizes = batches_of(rows, 50);
    EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}), rows);
    for (const int64_t size : sizes) {
      EXPECT_GE(size, 1);
      EXPECT_LE(size, 50);
    }
  }
  EXPECT_EQ(batches_of(101, 50), (std::vector<int64_t>{34, 34, 33}));
}

}  // namespace
}  // namespace nibble::synth
