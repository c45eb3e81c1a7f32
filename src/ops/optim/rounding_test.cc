// Random bits, stochastic rounding and the split master.
#include <gtest/gtest.h>

#include <limits>

#include "ops/optim/adamw.h"
#include "ops/optim/split_master.h"
#include "tests/support/op_test.h"

namespace nibble::ops {
namespace {

using test::TestContext;
using test::TestTensor;

TEST(Random16, LayoutOfTheCounter) {
  // Philox with key 0 and counter 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
  EXPECT_EQ(random16({}, RandomPurpose::weight, 0),
            (std::array<uint16_t, 8>{0xe8d5, 0x6627, 0xc58d, 0xe169, 0xac4c, 0xbc57, 0xdbd8, 0x9b00}));
  const RandomKey key{0x123456789abcdef0, 77, 3, 5};
  const auto words = philox(key.seed, 0x1'0000'0002, (uint64_t{5 * 4 + 3} << 32) | (77 * 256 + 3));
  const auto bits = random16(key, RandomPurpose::gradient, 0x1'0000'0002);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(bits[i], (words[i / 2] >> (16 * (i % 2))) & 0xFFFF) << i;
}

TEST(StochasticRounding, MeanOfAMillionDrawsIsTheNumber) {
  constexpr int64_t kDraws = 1'000'000;
  for (const float x : {1.001f, -0.0123456f, 3.14159e-20f, -7.7e30f, 0x1.8p-130f}) {
    const double low = bf16_to_f32(static_cast<uint16_t>(f32_bits(x) >> 16));
    const double high = bf16_to_f32(static_cast<uint16_t>((f32_bits(x) >> 16) + 1));
    const double share = (x - low) / (high - low);
    int64_t up = 0;
    for (int64_t group = 0; group < kDraws / 8; ++group) {
      for (const uint16_t r : random16({42, 1, 0, 9}, RandomPurpose::weight, static_cast<uint64_t>(group))) {
        const double y = bf16_to_f32(stochastic_bf16(x, r));
        ASSERT_TRUE(y == low || y == high) << x;
        up += y == high;
      }
    }
    const double mean = static_cast<double>(up) / kDraws;
    EXPECT_LE(std::abs(mean - share), 4 * std::sqrt(share * (1 - share) / kDraws)) << x;
  }
}

TEST(StochasticRounding, NumbersOfTheFormatAndSpecialsStay) {
  for (uint32_t word = 0; word < 0x10000; ++word) {
    const float x = bf16_to_f32(static_cast<uint16_t>(word));
    const uint16_t y = stochastic_bf16(x, 0xFFFF);
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(y)));
    } else {
      EXPECT_EQ(y, word);
    }
  }
}

TEST(StochasticRounding, AccumulationHasNoBiasAndReplays) {
  constexpr int64_t kElements = 20003;
  const TestTensor x({kElements});
  std::fill(x.values().begin(), x.values().end(), 0.001f);  // far below half a step of 1.0
  const auto run = [&](int threads) {
    TestContext test(threads);
    TestTensor acc({kElements}, DType::bf16);
    std::fill_n(acc.view.bf16(), kElements, f32_to_bf16(1));
    for (uint32_t micro = 0; micro < 100; ++micro) accumulate_bf16(test.cx, x.view, {7, 3, micro, 1}, acc.view);
    EXPECT_TRUE(acc.guards_intact());
    return acc;
  };
  const TestTensor a = run(1), b = run(3);
  test::expect_same_bits(a.view, b.view, "accumulated");
  double mean = 0;
  for (int64_t i = 0; i < kElements; ++i) mean += bf16_to_f32(a.view.bf16()[i]) / kElements;
  EXPECT_NEAR(mean, 1.1, 0.001);  // rounding to nearest would stay at 1
}

void expect_split(uint32_t bits) {
  const float w = f32_from_bits(bits);
  ASSERT_EQ(f32_bits(split_join(split_hi(w), split_lo(w))), bits);
}

TEST(SplitMaster, IsABijection) {
  for (uint32_t word = 0; word < 0x10000; ++word) {
    // Around every BF16 and every tie: halves 0000, 0001, 7fff, 8000, 8001, ffff.
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      const uint32_t bits = word << 16 | low;
      if ((bits & 0x7F800000) != 0x7F800000) expect_split(bits);
    }
  }
  Rng rng(61);
  for (int i = 0; i < 1'000'000; ++i) {
    const uint32_t bits = rng.bits();
    if ((bits & 0x7F800000) == 0x7F800000) continue;
    expect_split(bits);
    const uint16_t hi = split_hi(f32_from_bits(bits)), nearest = f32_to_bf16(f32_from_bits(bits));
    if ((bits & 0xFFFF) != 0x8000) {
      ASSERT_EQ(hi, nearest);
    }
  }
}

// All 4,278,190,080 finite numbers, about 10 s: --gtest_also_run_disabled_tests.
TEST(SplitMaster, DISABLED_IsABijectionOverAllFiniteNumbers) {
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; ++bits) {
    if ((bits & 0x7F800000) != 0x7F800000) expect_split(static_cast<uint32_t>(bits));
  }
}

}  // namespace
}  // namespace nibble::ops
