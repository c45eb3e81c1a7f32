// The order of packed weights is a bijection, and what kernels make of the bits is exact.
#include "ops/linear/nvfp4_fragment.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace nibble::ops {
namespace {

TEST(Nvfp4Fragment, EveryCodeAndScaleHasItsOwnPlace) {
  for (const auto& [rows, columns] : {std::pair{16, 128}, {32, 256}, {48, 384}}) {
    const int64_t pairs = pairs_of(columns), blocks = tiles_of(rows) * pairs;
    std::set<int64_t> codes, scales;
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t k = 0; k < columns; ++k) {
        const CodePlace place = code_place(n, k, pairs);
        ASSERT_TRUE(place.word % 4 == 0 && place.word >= 0 && place.word < blocks * kPairCodeBytes);
        codes.insert(place.word * 2 + place.reg * 2 + place.half);
        if (k % 16 == 0) scales.insert(scale_place(n, k, pairs));
        ASSERT_EQ(scale_place(n, k, pairs), scale_place(n, k / 16 * 16, pairs));
      }
    }
    EXPECT_EQ(codes.size(), static_cast<size_t>(rows * columns));
    EXPECT_EQ(scales.size(), static_cast<size_t>(rows * columns / 16));
    EXPECT_EQ(*scales.rbegin(), blocks * kPairScaleBytes - 1);
  }
}

TEST(Nvfp4Fragment, CodesAndScalesComeBack) {
  uint32_t all = 0;
  for (int reg = 0; reg < 4; ++reg) {
    for (int half = 0; half < 2; ++half) {
      uint32_t own = 0;
      for (uint8_t code = 0; code < 16; ++code) own |= place_code(code, reg, half);
      EXPECT_EQ(all & own, 0u) << "two codes share a bit";
      all |= own;
      for (uint8_t code = 0; code < 16; ++code) {
        EXPECT_EQ(take_code(place_code(code, reg, half) | ~own, reg, half), code);
      }
    }
  }
  EXPECT_EQ(all, 0xFFFFFFFFu);
  for (int scale = 1; scale <= kE4m3MaxByte; ++scale) {
    EXPECT_EQ(take_scale(place_scale(static_cast<uint8_t>(scale))), scale);
  }
}

TEST(Nvfp4Fragment, OperandsAreExact) {
  for (int scale = 1; scale <= kE4m3MaxByte; ++scale) {
    const uint32_t bits = scales_to_bf16(place_scale(static_cast<uint8_t>(scale)) * 0x10001u);
    const double s = e4m3_to_f32(static_cast<uint8_t>(scale));
    ASSERT_EQ(bits >> 16, bits & 0xFFFF);
    ASSERT_EQ(bf16_to_f32(static_cast<uint16_t>(bits)), s * 0x1p118) << scale;
    for (uint8_t code = 0; code < 16; ++code) {
      for (int reg = 0; reg < 4; ++reg) {
        uint32_t regs[4];
        uint32_t word = place_code(code, reg, 0) | place_code(code ^ 8, reg, 1);
        for (int other = 0; other < 4; ++other) {  // with all kinds of neighbours
          if (other != reg) word |= place_code((code + other) & 15, other, 0) | place_code(15 - code, other, 1);
        }
        codes_to_bf16(word, regs);
        const double low = bf16_to_f32(static_cast<uint16_t>(regs[reg]));
        const double high = bf16_to_f32(static_cast<uint16_t>(regs[reg] >> 16));
        const double value = static_cast<double>(e2m1_to_f32(code));
        ASSERT_EQ(low, value * 0x1p-126);
        ASSERT_EQ(high, -value * 0x1p-126);
        const float product = static_cast<float>(low * s * 0x1p118);
        ASSERT_EQ(round_to_bf16(product), value * s / kFragmentFactor) << "not exact in BF16";
      }
    }
  }
}

}  // namespace
}  // namespace nibble::ops
