#include "quantize/awq_scales.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "base/file.h"
#include "io/json.h"
#include "tensor/numeric.h"
#include "tests/support/golden.h"
#include "tests/support/op_test.h"

namespace nibble::quantize {
namespace {

using test::TestContext;
using test::TestTensor;

constexpr const char* kModelOpt = NIBBLE_SOURCE_DIR "/tests/golden/modelopt/awq_lite/";
constexpr const char* kLlmCompressor = NIBBLE_SOURCE_DIR "/tests/golden/compressed_tensors/awq_w4a16.";

Json read_json(const std::string& file) {
  return *parse_json(*read_file(file), file);
}

TEST(AwqScales, VectorG7) {
  // Without the eps of the second kind, at an exponent the grid does not have.
  const float x[] = {1, 4, 16, 64}, w[] = {.5f, .5f, .25f, .125f};
  const double expected[] = {.25, .5, 1.41421356, 4};
  double s[4], smallest = HUGE_VAL, largest = 0;
  for (int k = 0; k < 4; ++k) {
    s[k] = std::sqrt(static_cast<double>(x[k])) / std::sqrt(static_cast<double>(w[k]));
    smallest = std::min(smallest, s[k]);
    largest = std::max(largest, s[k]);
  }
  for (int k = 0; k < 4; ++k) EXPECT_NEAR(s[k] / std::sqrt(smallest * largest), expected[k], 1e-8);
  // The neighbours that it does have, at 4/9 and 5/9, enclose it.
  const std::vector<float> below = awq_candidate(x, w, 9), above = awq_candidate(x, w, 11);
  EXPECT_LT(above[0], below[0] * 1.05f);
  for (int k = 0; k < 4; ++k) {
    const double middle = std::sqrt(static_cast<double>(below[static_cast<size_t>(k)]) * above[static_cast<size_t>(k)]);
    EXPECT_NEAR(middle, expected[k], 1e-3 * expected[k]);
  }
}

TEST(AwqScales, CandidatesAreNormalizedAndFinite) {
  const float x[] = {1e-3f, 0, 7, 2.5f}, w[] = {.3f, .2f, 0, .9f};
  for (int c = 0; c < kAwqCandidates; ++c) {
    const std::vector<float> s = awq_candidate(x, w, c);
    const auto [low, high] = std::minmax_element(s.begin(), s.end());
    EXPECT_NEAR(static_cast<double>(*low) * *high, 1, 1e-6) << c;
    if (c == 0) {
      EXPECT_EQ(s, std::vector<float>(4, 1));
    }
  }
  const float zero[] = {0, 0};
  for (const float s : awq_candidate(zero, zero, 18)) EXPECT_EQ(s, 1);
  const float infinite[] = {INFINITY, 1};
  for (const float s : awq_candidate(infinite, infinite, 18)) EXPECT_TRUE(std::isfinite(s));
}

std::vector<double> numbers(const Safetensors& file, const std::string& name) {
  const TensorInfo* info = file.find(name);
  NIBBLE_CHECK(info != nullptr);
  const std::span<const std::byte> bytes = file.bytes(*info);
  int64_t elements = 1;
  for (const int64_t d : info->shape) elements *= d;
  std::vector<double> out(static_cast<size_t>(elements));
  const size_t size = bytes.size() / out.size();  // llm-compressor keeps some of them in f64
  for (size_t i = 0; i < out.size(); ++i) {
    float f = 0;
    if (size == 8) std::memcpy(&out[i], bytes.data() + i * 8, 8);
    if (size == 4) {
      std::memcpy(&f, bytes.data() + i * 4, 4);
      out[i] = static_cast<double>(f);
    }
  }
  return out;
}

std::vector<float> in_f32(const std::vector<double>& x) {
  return {x.begin(), x.end()};
}

TEST(AwqScales, LlmCompressorsBestScalesFromItsMeans) {
  const Result<Safetensors> file = Safetensors::open(std::string(kLlmCompressor) + "intermediates.safetensors");
  ASSERT_TRUE(file.ok());
  const Json mappings = read_json(std::string(kLlmCompressor) + "intermediates.json");
  EXPECT_EQ(mappings.size(), 24u);
  for (const auto& [name, mapping] : mappings.items()) {
    size_t best = 0;
    for (size_t c = 0; c < kAwqCandidates; ++c) {
      EXPECT_EQ(mapping["grid"][c][0].get<double>(), static_cast<double>(c / 2) / 9);
      EXPECT_EQ(mapping["grid"][c][1].get<bool>(), c % 2 == 1);
      if (mapping["losses"][c] < mapping["losses"][best]) best = c;
    }
    const std::vector<float> ours = awq_candidate(in_f32(numbers(*file, "x_mean." + name)),
                                                  in_f32(numbers(*file, "w_mean." + name)), static_cast<int>(best));
    const std::vector<double> theirs = numbers(*file, "scales." + name);
    ASSERT_EQ(ours.size(), theirs.size());
    for (size_t k = 0; k < ours.size(); ++k) EXPECT_NEAR(ours[k] / theirs[k], 1, 5e-7) << name << " " << k;
  }
}

class TinyVoice : public testing::Test {
 protected:
  Tensor weight(const std::string& module) const {
    const SafetensorsFolder::Entry* entry = folder_->find(module + ".weight");
    NIBBLE_CHECK(entry != nullptr);
    return *entry->file->tensor(*entry->info);
  }
  Result<SafetensorsFolder> folder_ = SafetensorsFolder::open(NIBBLE_SOURCE_DIR "/models/tiny-voice");
  TestContext test_{2};
};

TEST_F(TinyVoice, WeightMeansOfTheQuantizedReadersAreLlmCompressors) {
  const Result<Safetensors> file = Safetensors::open(std::string(kLlmCompressor) + "intermediates.safetensors");
  const Json mappings = read_json(std::string(kLlmCompressor) + "intermediates.json");
  for (const auto& [name, mapping] : mappings.items()) {
    std::vector<Tensor> readers;
    for (const Json& reader : mapping["balance"]) {
      const auto module = reader.get<std::string>();
      if (!module.ends_with("in_proj_a") && !module.ends_with("in_proj_b")) readers.push_back(weight(module));
    }
    const std::vector<float> ours = awq_weight_mean(test_.cx, readers);
    const std::vector<double> theirs = numbers(*file, "w_mean." + name);
    for (size_t k = 0; k < ours.size(); ++k) EXPECT_NEAR(ours[k] / theirs[k], 1, 1e-6) << name << " " << k;
  }
}

TEST_F(TinyVoice, NormFoldAndReadersAreLlmCompressors) {
  const Result<Safetensors> file = Safetensors::open(std::string(kLlmCompressor) + "intermediates.safetensors");
  const test::Golden folded(std::string(kLlmCompressor) + "norms.safetensors");
  const std::string norm = "model.layers.0.input_layernorm";
  const Tensor before = weight(norm);
  const std::vector<float> s = in_f32(numbers(*file, "scales." + norm));
  // It folds into an f32 norm, so nothing is rounded and s_eff is s.
  const TestTensor after(before.shape());
  const std::vector<float> effective = awq_fold_one_plus(before, s, after.view);
  for (size_t k = 0; k < s.size(); ++k) {
    EXPECT_NEAR(after.values()[k], folded[norm + ".weight"].f32()[k], 1.2e-7 * (1 + std::abs(after.values()[k])));
    EXPECT_NEAR(effective[k] / s[k], 1, 1e-5);
  }
  for (const std::string reader : {"in_proj_a", "in_proj_b"}) {
    const Tensor w = weight("model.layers.0.linear_attn." + reader);
    const TestTensor scaled(w.shape());
    awq_scale_columns(test_.cx, w, s, scaled.view);
    const float* theirs = folded["model.layers.0.linear_attn." + reader + ".weight"].f32();
    for (int64_t i = 0; i < w.elements(); ++i) EXPECT_NEAR(scaled.view.f32()[i], theirs[i], 1e-7) << reader << i;
  }
}

TEST(AwqFold, OnePlusNormInBf16) {
  // w, s; a zero gain; a gain that would round to zero.
  TestTensor norm({4}, DType::bf16), folded({4}, DType::bf16);
  const float w[] = {.25f, -1, -.9921875f, .5f}, s[] = {3, 2, 64, 1};
  for (int64_t k = 0; k < 4; ++k) norm.view.bf16()[k] = f32_to_bf16(w[k]);
  const std::vector<float> effective = awq_fold_one_plus(norm.view, s, folded.view);
  EXPECT_EQ(bf16_to_f32(folded.view.bf16()[0]), -.58203125f);
  EXPECT_NEAR(effective[0], 2.99065421, 1e-8 + 2e-7);
  for (const int64_t k : {1, 2, 3}) {
    EXPECT_EQ(folded.view.bf16()[k], norm.view.bf16()[k]) << k;
    EXPECT_EQ(effective[static_cast<size_t>(k)], 1) << k;
  }
  // The product of gain and s_eff is what it was, whatever the rounding.
  Rng rng(7);
  const TestTensor many({500}, DType::bf16), other({500}, DType::bf16);
  std::vector<float> scales(500);
  for (int64_t k = 0; k < 500; ++k) {
    many.view.bf16()[k] = f32_to_bf16(rng.normal() * .5f);
    scales[static_cast<size_t>(k)] = std::exp2(rng.uniform(-3, 3));
  }
  const std::vector<float> e = awq_fold_one_plus(many.view, scales, other.view);
  for (int64_t k = 0; k < 500; ++k) {
    const double gain = 1 + static_cast<double>(bf16_to_f32(many.view.bf16()[k])),
                 after = 1 + static_cast<double>(bf16_to_f32(other.view.bf16()[k]));
    EXPECT_NEAR(after * e[static_cast<size_t>(k)], gain, 1e-6 * std::abs(gain));
  }
}

TEST(AwqFold, PlainNorm) {
  TestTensor norm({3}, DType::bf16), folded({3}, DType::bf16);
  const float w[] = {.75f, 0, -1.5f}, s[] = {3, 5, .7f};
  for (int64_t k = 0; k < 3; ++k) norm.view.bf16()[k] = f32_to_bf16(w[k]);
  const std::vector<float> effective = awq_fold_plain(norm.view, s, folded.view);
  EXPECT_EQ(bf16_to_f32(folded.view.bf16()[0]), .25f);
  EXPECT_EQ(effective[0], 3);
  EXPECT_EQ(effective[1], 1);
  EXPECT_EQ(folded.view.bf16()[1], 0);
  EXPECT_NEAR(bf16_to_f32(folded.view.bf16()[2]) * effective[2], -1.5, 1e-6);
  EXPECT_NEAR(effective[2], .7, .7 / 256);
}

TEST(AwqFold, RowsOfAProducerAndInputAmax) {
  TestContext test;
  const TestTensor w({2, 3}), out({2, 3}, DType::bf16);
  const float values[] = {1, 2, 3, 4, 5, 6}, s[] = {2, 4}, amax[] = {6, 2};
  std::copy(std::begin(values), std::end(values), w.values().begin());
  awq_divide_rows(test.cx, w.view, s, out.view);
  const float expected[] = {.5f, 1, 1.5f, 1, 1.25f, 1.5f};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(bf16_to_f32(out.view.bf16()[i]), expected[i]);
  EXPECT_EQ(awq_input_amax(amax, s), 3);
}

// ModelOpt's own scales, by its formula: another grid, another clamp, and a pre_quant_scale that plain NVFP4 does not
// have. The folding of that scale into norms, which its exporter gets wrong for this family, is not ours.
TEST(AwqScales, DifferenceModelOptSearchesUnfoldedScales) {
  const test::Golden golden(std::string(kModelOpt) + "search_fp32.safetensors");
  const Json search = read_json(std::string(kModelOpt) + "search_fp32.json");
  EXPECT_GE(search.size(), 10u);
  for (const auto& [name, entry] : search.items()) {
    const double alpha = entry["best_alpha"].get<double>();
    const Tensor x = golden[name + ".act_scale"], w = golden[name + ".weight_scale"],
                 best = golden[name + ".best_scale"];
    std::vector<double> s(static_cast<size_t>(x.elements()));
    for (size_t k = 0; k < s.size(); ++k) {
      s[k] = std::pow(static_cast<double>(x.f32()[k]), alpha) /
             (std::pow(static_cast<double>(w.f32()[k]), 1 - alpha) + static_cast<double>(0x1p-126f));
      s[k] = std::clamp(s[k], 1e-4, 1e4);
    }
    const auto [low, high] = std::minmax_element(s.begin(), s.end());
    const double unit = std::sqrt(*low * *high);
    for (size_t k = 0; k < s.size(); ++k) EXPECT_NEAR(s[k] / unit / best.f32()[k], 1, 1e-6) << name << " " << k;
  }
}

}  // namespace
}  // namespace nibble::quantize
