#include "synth/aimd.h"

#include <gtest/gtest.h>

namespace nibble::synth {
namespace {

TEST(Aimd, GrowsByOneForEachWindowOfAnswers) {
  Aimd aimd(2, 4);
  EXPECT_EQ(aimd.limit(), 2);
  aimd.succeeded();
  EXPECT_EQ(aimd.limit(), 2);
  aimd.succeeded();
  EXPECT_EQ(aimd.limit(), 3);
  for (int i = 0; i < 20; ++i) aimd.succeeded();
  EXPECT_EQ(aimd.limit(), 4);
}

TEST(Aimd, FallsByAQuarterAndRests) {
  Aimd aimd(16, 16);
  aimd.overloaded(100, 99);
  EXPECT_EQ(aimd.limit(), 12);
  EXPECT_DOUBLE_EQ(aimd.open_s(), 102);
  aimd.overloaded(103, 102.5, 7);
  EXPECT_EQ(aimd.limit(), 9);
  EXPECT_DOUBLE_EQ(aimd.open_s(), 110);
}

// Sixteen requests that were in flight together say the same thing.
TEST(Aimd, OneStormIsOneFall) {
  Aimd aimd(16, 16);
  for (int i = 0; i < 16; ++i) aimd.overloaded(100 + 0.01 * i, 99);
  EXPECT_EQ(aimd.limit(), 12);
}

TEST(Aimd, NeverFallsBelowOne) {
  Aimd aimd(4, 8);
  for (int i = 0; i < 40; ++i) aimd.overloaded(i * 3, i * 3 - 0.5);
  EXPECT_EQ(aimd.limit(), 1);
  aimd.succeeded();
  EXPECT_EQ(aimd.limit(), 2);
}

TEST(Aimd, AServerMayNotAskForADay) {
  Aimd aimd(1, 1);
  aimd.overloaded(0, 0, 86400);
  EXPECT_DOUBLE_EQ(aimd.open_s(), Aimd::kLongestRest_s);
}

}  // namespace
}  // namespace nibble::synth
