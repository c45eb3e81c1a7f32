#include "io/ggml_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "base/rng.h"
#include "io/safetensors.h"
#include "tensor/numeric.h"

namespace nibble {
namespace {

const Path kGolden = NIBBLE_SOURCE_DIR "/tests/golden/gguf/blocks.safetensors";

constexpr GgmlType kTypes[] = {GgmlType::f32,  GgmlType::f16,  GgmlType::bf16, GgmlType::q4_0, GgmlType::q8_0,
                               GgmlType::q4_k, GgmlType::q5_k, GgmlType::q6_k, GgmlType::nvfp4};

TEST(GgmlBlocks, DecodeWhatGgufPyDecodes) {
  const auto golden = std::move(Safetensors::open(kGolden)).value();
  for (const GgmlType type : kTypes) {
    const GgmlFormat& format = ggml_format(type);
    const TensorInfo *blocks = golden.find(std::string(format.name) + ".blocks"),
                     *values = golden.find(std::string(format.name) + ".values");
    ASSERT_TRUE(blocks != nullptr && values != nullptr) << format.name;
    ASSERT_EQ(blocks->shape[1], format.bytes);
    ASSERT_EQ(values->shape[1], format.weights);
    std::vector<float> got(values->bytes / 4), want(got.size());
    std::memcpy(want.data(), golden.bytes(*values).data(), values->bytes);
    ggml_decode(type, golden.bytes(*blocks), got);
    for (size_t i = 0; i < got.size(); ++i) {
      // The reference has one zero for codes 0 and 8 of NVFP4, nibble two.
      if (type == GgmlType::nvfp4 && got[i] == 0) got[i] = want[i] == 0 ? want[i] : got[i];
      ASSERT_EQ(f32_bits(got[i]), f32_bits(want[i])) << format.name << " " << i << ": " << got[i] << " " << want[i];
    }
  }
}

TEST(GgmlBlocks, EncodeQ8AsGgufPyDoes) {
  const auto golden = std::move(Safetensors::open(kGolden)).value();
  const TensorInfo *x = golden.find("encode.x"), *want = golden.find("encode.q8_0");
  std::vector<float> values(x->bytes / 4);
  std::memcpy(values.data(), golden.bytes(*x).data(), x->bytes);
  std::vector<std::byte> got(want->bytes);
  encode_q8_0(values, got);
  EXPECT_EQ(std::memcmp(got.data(), golden.bytes(*want).data(), got.size()), 0);
}

// d = 2, dmin = 0.5; pair 0 is (1, 2), pair 5 is (0x21, 0x13); code 7 in the first weight of either, with fifth bits.
TEST(GgmlBlocks, DecodeABlockByHand) {
  std::vector<std::byte> block(176);
  const auto set = [&](size_t at, int value) { block[at] = static_cast<std::byte>(value); };
  set(1, 0x40);  // 2.0
  set(3, 0x38);  // 0.5
  set(4 + 0, 1);
  set(4 + 4, 2);
  set(4 + 9, 0x31);    // pair 5: low four bits of 0x21 and 0x13
  set(4 + 1, 2 << 6);  // high two of 0x21
  set(4 + 5, 1 << 6);  // high two of 0x13
  std::vector<std::byte> q4(block.begin(), block.begin() + 144);
  q4[16] = std::byte{7};
  q4[16 + 64] = std::byte{7 << 4};
  std::vector<float> out(256);
  ggml_decode(GgmlType::q4_k, q4, out);
  EXPECT_EQ(out[0], 2 * 1 * 7 - 0.5f * 2);
  EXPECT_EQ(out[1], -0.5f * 2);
  EXPECT_EQ(out[160], 2.0f * 0x21 * 7 - 0.5f * 0x13);
  set(16, 1 | 1 << 5);  // the fifth bits of weights 0 and 160
  set(48, 7);
  set(48 + 64, 7 << 4);
  ggml_decode(GgmlType::q5_k, block, out);
  EXPECT_EQ(out[0], 2 * 1 * 23 - 0.5f * 2);
  EXPECT_EQ(out[160], 2.0f * 0x21 * 23 - 0.5f * 0x13);
  EXPECT_EQ(out[161], -0.5f * 0x13);

  std::vector<std::byte> q6(210);
  q6[209] = std::byte{0x40};                     // d = 2
  q6[192 + 8 + 5] = static_cast<std::byte>(-3);  // second half, weights 80..95 of it
  q6[64 + 16] = std::byte{0xA0};                 // high nibble: weight 128 + 64 + 16
  q6[128 + 32 + 16] = std::byte{2 << 4};
  ggml_decode(GgmlType::q6_k, q6, out);
  EXPECT_EQ(out[128 + 64 + 16], 2.0f * -3 * ((0xA | 2 << 4) - 32));
  EXPECT_EQ(out[128 + 64 + 17], 2.0f * -3 * -32);
  EXPECT_EQ(out[0], 0.0f);
}

TEST(GgmlBlocks, Q8ErrorIsAtMostHalfAStepOfTheStoredScale) {
  Rng rng(8);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> x(32), back(32);
    const float size = std::exp2(rng.uniform(-6, 10));  // the step stays a normal f16
    for (float& v : x) v = rng.uniform(-size, size);
    std::vector<std::byte> block(34);
    encode_q8_0(x, block);
    ggml_decode(GgmlType::q8_0, block, back);
    float amax = 0;
    for (const float v : x) amax = std::max(amax, std::fabs(v));
    // Half a step, and 127 steps times the rounding of the step to eleven bits.
    const float bound = amax / 127 * (0.5f + 127 * 0x1p-11f) * 1.0001f;
    for (size_t i = 0; i < 32; ++i) EXPECT_LE(std::fabs(x[i] - back[i]), bound);
  }
}

TEST(GgmlBlocks, EncodeQ8SurvivesTheSmallestNumbers) {
  std::vector<float> x(32, 1e-44f), back(32);
  std::vector<std::byte> block(34);
  encode_q8_0(x, block);
  ggml_decode(GgmlType::q8_0, block, back);
  for (const float v : back) EXPECT_EQ(v, 0.0f);
}

TEST(GgmlBlocks, Nvfp4GoesBothWaysWithoutLoss) {
  Rng rng(4);
  std::vector<uint8_t> codes(64), scales(8), codes_back(64), scales_back(8);
  for (uint8_t& c : codes) c = static_cast<uint8_t>(rng.bits());
  for (uint8_t& s : scales) s = static_cast<uint8_t>(rng.below(0x7F));
  std::vector<std::byte> blocks(72);
  pack_nvfp4(codes, scales, blocks);
  unpack_nvfp4(blocks, codes_back, scales_back);
  EXPECT_EQ(codes, codes_back);
  EXPECT_EQ(scales, scales_back);
  std::vector<float> values(128);
  ggml_decode(GgmlType::nvfp4, blocks, values);
  for (size_t i = 0; i < 128; ++i) {
    const float want = e2m1_to_f32(codes[i / 2] >> (i % 2 * 4) & 15) * e4m3_to_f32(scales[i / 16]);
    EXPECT_EQ(f32_bits(values[i]), f32_bits(want));
  }
}

TEST(GgmlBlocks, NamesOfTypes) {
  EXPECT_EQ(ggml_type_name(12), "Q4_K");
  EXPECT_EQ(ggml_type_name(10), "Q2_K");
  EXPECT_EQ(ggml_type_name(4'000'000'000u), "type 4000000000");
  EXPECT_FALSE(ggml_format(10).has_value());
  std::set<std::string_view> names;
  for (const GgmlType type : kTypes) names.insert(ggml_format(type).name);
  EXPECT_EQ(names.size(), std::size(kTypes));
}

}  // namespace
}  // namespace nibble
