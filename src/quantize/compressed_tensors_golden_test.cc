// The quantizer of compressed-tensors 0.19 (through llm-compressor), which ours is not: restated, held to its bytes,
// and its differences from us, each by its name. What its files say is compatible all the same: codes times scales.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/file.h"
#include "io/json.h"
#include "ops/quant/nvfp4.h"
#include "tests/support/compressed_tensors_arithmetic.h"
#include "tests/support/golden.h"
#include "tests/support/op_test.h"

namespace nibble::quantize {
namespace {

using test::CompressedTensorsArithmetic;
using test::Golden;
using test::TestTensor;

constexpr int64_t kBlock = kNvfp4Block;
const Path kGolden = NIBBLE_SOURCE_DIR "/tests/golden/compressed_tensors";

uint8_t without_negative_zero(int code) {
  return code == 8 ? 0 : static_cast<uint8_t>(code);
}

class CompressedTensors : public testing::Test {
 protected:
  TestTensor weight(const std::string& module) const {
    const Result<SafetensorsFolder> model = SafetensorsFolder::open(NIBBLE_SOURCE_DIR "/models/tiny-voice");
    const SafetensorsFolder::Entry* entry = model->find(module + ".weight");
    const Tensor source = *entry->file->tensor(*entry->info);
    TestTensor w(source.shape());
    for (int64_t i = 0; i < source.elements(); ++i) w.view.f32()[i] = bf16_to_f32(source.bf16()[i]);
    return w;
  }
  static constexpr const char* kModule = "model.layers.3.self_attn.k_proj";
  Golden file_{kGolden / "rtn_k_proj.safetensors"};
};

TEST_F(CompressedTensors, DifferenceItRoundsGlobalAndBlockScalesInTheModelsDtype) {
  const TestTensor w = weight(kModule);
  float amax = 0;
  for (const std::string member : {"q_proj", "k_proj", "v_proj"}) {
    const TestTensor of_member = weight("model.layers.3.self_attn." + member);
    for (const float x : of_member.values()) amax = std::max(amax, std::abs(x));
  }
  for (const bool bf16 : {true, false}) {
    const std::string prefix = (bf16 ? "bf16." : "f32.") + std::string(kModule);
    const auto theirs = CompressedTensorsArithmetic::of(bf16, amax);
    EXPECT_EQ(theirs.global, *file_[prefix + ".weight_global_scale"].f32());
    const Tensor scales = file_[prefix + ".weight_scale"], codes = file_[prefix + ".weight_packed"];
    const float ws2 = 1 / theirs.global;
    int64_t scales_unlike_ours = 0, codes_unlike_ours = 0;
    for (int64_t b = 0; b < scales.elements(); ++b) {
      const float* x = w.view.f32() + b * kBlock;
      const uint8_t scale = scales.u8()[b];
      EXPECT_EQ(theirs.block_scale(x), scale) << prefix << " " << b;
      float largest = 0;
      for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(x[i]));
      scales_unlike_ours += nvfp4_block_scale(largest, ws2) != scale;
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t at = b * kBlock + i;
        const uint8_t code = without_negative_zero(codes.u8()[at / 2] >> (at % 2 * 4) & 15);
        EXPECT_EQ(without_negative_zero(theirs.code(x[i], scale)), code) << prefix << " " << at;
        codes_unlike_ours += without_negative_zero(nvfp4_code(x[i], nvfp4_step(scale, ws2))) != code;
      }
    }
    // Of 4,096 scales and 65,536 codes: a_b/6 is rounded to BF16, and codes divide by s/gs instead of s*ws2.
    EXPECT_EQ(scales_unlike_ours, bf16 ? 25 : 0);
    EXPECT_EQ(codes_unlike_ours, bf16 ? 95 : 0);
  }
}

TEST_F(CompressedTensors, DifferenceZeroAndTinyBlocksHaveScaleAnEighth) {
  const Json vectors = *parse_json(*read_file(kGolden / "vectors.json"), "vectors.json");
  const Json inputs = *parse_json(*read_file(kGolden / "../modelopt/vectors.json"), "vectors.json");
  const auto row = inputs["G1"]["input"][0].get<std::vector<float>>();
  const CompressedTensorsArithmetic theirs{false, vectors["G1 float32"]["weight_global_scale"].get<float>()};
  std::string scales, packed, ours;
  for (size_t b = 0; b < row.size() / kBlock; ++b) {
    const float* x = row.data() + b * kBlock;
    const uint8_t scale = theirs.block_scale(x);
    scales += fmt::format("{:02x}", scale);
    for (size_t i = 0; i < kBlock; i += 2) {
      packed += fmt::format("{:02x}", theirs.code(x[i + 1], scale) << 4 | theirs.code(x[i], scale));
    }
    float largest = 0;
    for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(x[i]));
    ours += fmt::format("{:02x}", nvfp4_block_scale(largest, 1 / theirs.global));
  }
  EXPECT_EQ(scales, vectors["G1 float32"]["scales"]);
  EXPECT_EQ(packed, vectors["G1 float32"]["packed"]);
  EXPECT_EQ(scales, "7e6b202001");
  EXPECT_EQ(ours, "7e6b380101");  // a zero block has scale 1, a tiny one the smallest scale and keeps its values
}

TEST_F(CompressedTensors, NegativeZeroCode) {
  // A small negative weight rounds to -0 in both; -0 itself is code 0 here and may be code 8 there. Both decode to 0.
  EXPECT_EQ(f32_to_e2m1(-.1f), 8);
  EXPECT_EQ(f32_to_e2m1(-0.0f), 0);
  EXPECT_EQ(e2m1_to_f32(8), 0);
}

}  // namespace
}  // namespace nibble::quantize
