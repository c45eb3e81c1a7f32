#include "base/rng.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

// Known-answer vectors of the Random123 distribution (kat_vectors, philox4x32-10).
TEST(Rng, PhiloxKnownAnswers) {
  EXPECT_EQ(philox(0, 0, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint64_t ones = ~uint64_t{0};
  EXPECT_EQ(philox(ones, ones, ones), (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, MomentsOfUniformAndNormal) {
  Rng rng(1);
  double sum = 0, square = 0, uniform = 0;
  constexpr int kN = 100000;
  for (int i = 0; i < kN; ++i) {
    const double x = rng.normal();
    sum += x;
    square += x * x;
    uniform += rng.uniform();
  }
  EXPECT_NEAR(sum / kN, 0, 0.02);
  EXPECT_NEAR(square / kN, 1, 0.03);
  EXPECT_NEAR(uniform / kN, 0.5, 0.01);
}

}  // namespace
}  // namespace nibble
