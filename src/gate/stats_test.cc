#include "gate/stats.h"

#include <gtest/gtest.h>

namespace nibble::gate {
namespace {

struct Golden {
  int64_t k, n;
  double low, high;
};

TEST(Wilson, MeetsTheGoldens) {
  for (const Golden g : {Golden{0, 25, 0, 0.133192},
                         {25, 25, 0.866808, 1},
                         {9, 10, 0.595850, 0.982124},
                         {10, 10, 0.722467, 1},
                         {5, 5, 0.565518, 1},
                         {12, 15, 0.548146, 0.929525},
                         {6, 10, 0.312674, 0.831820},
                         {27, 30, 0.743789, 0.965400},
                         {36, 40, 0.769482, 0.960420},
                         {180, 200, 0.850594, 0.934330},
                         {0, 100, 0, 0.036993}}) {
    const Interval interval = wilson_95(g.k, g.n);
    EXPECT_NEAR(interval.low, g.low, 5e-7) << g.k << "/" << g.n;
    EXPECT_NEAR(interval.high, g.high, 5e-7) << g.k << "/" << g.n;
  }
}

// How many cases prove a rate when f of them fail: the lower bound reaches the threshold at n and not at n - 1.
TEST(Wilson, CasesNeededForAThreshold) {
  struct Needed {
    double threshold;
    int64_t failures, n;
  };
  for (const Needed c :
       {Needed{0.8, 0, 16}, {0.8, 3, 40}, {0.9, 0, 35}, {0.9, 1, 53}, {0.9, 3, 84}, {0.95, 0, 73}, {0.95, 3, 173}}) {
    EXPECT_GE(wilson_95(c.n - c.failures, c.n).low, c.threshold) << c.n;
    EXPECT_LT(wilson_95(c.n - 1 - c.failures, c.n - 1).low, c.threshold) << c.n;
  }
}

TEST(Wilson, WithoutATrialNothingIsKnown) {
  EXPECT_EQ(wilson_95(0, 0).low, 0);
  EXPECT_EQ(wilson_95(0, 0).high, 1);
}

}  // namespace
}  // namespace nibble::gate
