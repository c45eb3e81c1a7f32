// Searched scales, GPTQ and FP8 against tensors that ModelOpt 0.47 wrote, and its differences from us, each by name.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "io/json.h"
#include "ops/quant/fp8.h"
#include "ops/quant/nvfp4.h"
#include "quantize/gptq.h"
#include "tests/support/golden.h"
#include "tests/support/op_test.h"

namespace nibble::quantize {
namespace {

using test::Golden;
using test::TestTensor;

constexpr int64_t kBlock = kNvfp4Block;
const Path kGolden = NIBBLE_SOURCE_DIR "/tests/golden/modelopt";

Json golden_json(const std::string& name) {
  return *parse_json(*read_file(kGolden / name), name);
}

std::string fnv1a(const Tensor& t) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < t.bytes(); ++i) hash = (hash ^ static_cast<const uint8_t*>(t.raw())[i]) * 0x100000001b3;
  return fmt::format("{:016x}", hash);
}

bool is_qkv_or_z(const std::string& module) {
  return module.ends_with("in_proj_qkv") || module.ends_with("in_proj_z");
}

double error_of(const float* w, uint8_t scale, float ws2) {
  const float step = nvfp4_step(scale, ws2);
  double error = 0;
  for (int64_t i = 0; i < kBlock; ++i) {
    const double difference = static_cast<double>(nvfp4_value(nvfp4_code(w[i], step), step)) - w[i];
    error += difference * difference;
  }
  return error;
}

class ModelOptScales : public testing::Test {
 protected:
  ModelOptScales() {
    const Json hashes = golden_json("mse_sweep/hashes.json")["linears"];
    for (const auto& [module, golden] : hashes.items()) modules_.push_back(module);
  }

  TestTensor weight(const std::string& module) const {
    const SafetensorsFolder::Entry* entry = model_->find(module + ".weight");
    NIBBLE_CHECK(entry != nullptr);
    const Tensor source = *entry->file->tensor(*entry->info);
    TestTensor w(source.shape());
    for (int64_t i = 0; i < source.elements(); ++i) w.view.f32()[i] = bf16_to_f32(source.bf16()[i]);
    return w;
  }

  float own_amax(const std::string& module) { return ops::tensor_amax(test_.cx, weight(module).view).amax; }

  static TestTensor empty_scales(const TestTensor& w) {
    return TestTensor({w.view.dim(0), w.view.dim(1) / kBlock}, DType::f8e4m3);
  }

  // The codes of all 50 linears under the block and tensor scales of the file, by their hashes.
  void expect_codes_follow_from_scales(const std::string& strategy) {
    const Golden file(kGolden / strategy / "tensors.safetensors");
    const Json hashes = golden_json(strategy + "/hashes.json")["linears"];
    EXPECT_EQ(hashes.size(), 50u);
    for (const auto& [module, golden] : hashes.items()) {
      const TestTensor w = weight(module), codes({w.view.dim(0), w.view.dim(1) / 2}, DType::u8);
      const float ws2 = *file[module + ".weight_scale_2"].f32();
      ops::nvfp4_encode(test_.cx, w.view, {ws2, false}, file[module + ".weight_scale"], codes.view);
      EXPECT_EQ(fnv1a(codes.view), golden["weight"]) << strategy << " " << module;
      EXPECT_EQ(fnv1a(file[module + ".weight_scale"]), golden["scale"]) << strategy << " " << module;
    }
  }

  // How many bytes of in_proj_qkv and in_proj_z are not what the search finds under the file's own tensor scale.
  template <class Search>
  std::pair<int64_t, int64_t> bytes_of_qkv_and_z_that_differ(const std::string& strategy, const Search& search) {
    const Golden file(kGolden / strategy / "tensors.safetensors");
    int64_t different = 0, blocks = 0;
    for (const std::string& module : modules_) {
      if (!is_qkv_or_z(module)) continue;
      const TestTensor w = weight(module), scales = empty_scales(w);
      search(test_.cx, w.view, {*file[module + ".weight_scale_2"].f32(), false}, scales.view);
      const Tensor theirs = file[module + ".weight_scale"];
      blocks += theirs.elements();
      for (int64_t i = 0; i < theirs.elements(); ++i) different += scales.view.u8()[i] != theirs.u8()[i];
    }
    return {different, blocks};
  }

  Result<SafetensorsFolder> model_ = SafetensorsFolder::open(NIBBLE_SOURCE_DIR "/models/tiny-voice");
  std::vector<std::string> modules_;
  test::TestContext test_{2};
};

TEST_F(ModelOptScales, CodesFollowFromTheFilesOwnScales) {
  for (const std::string strategy : {"mse_sweep", "four_over_six", "local_hessian"}) {
    expect_codes_follow_from_scales(strategy);
  }
}

TEST_F(ModelOptScales, LocalHessianBytesFromTheStoredHessian) {
  const Golden file(kGolden / "local_hessian/tensors.safetensors"),
      hessians(kGolden / "local_hessian/hessian_fp32.safetensors");
  for (const std::string module : {"model.layers.0.linear_attn.out_proj", "model.layers.3.self_attn.k_proj"}) {
    const TestTensor w = weight(module), scales = empty_scales(w);
    ops::nvfp4_scales_hessian(test_.cx, w.view, {*file[module + ".weight_scale_2"].f32(), false},
                              hessians[module + ".hessian_blocks"], scales.view);
    test::expect_same_bits(scales.view, file[module + ".weight_scale"], module.c_str());
  }
}

// ModelOpt rates its two candidates under e4m3((a/6) * fl(448/…)) but exports e4m3((a/6) * 256/(G/6)): where a is at a
// tie those are different bytes.
TEST_F(ModelOptScales, FourOverSixBytes) {
  const Golden file(kGolden / "four_over_six/tensors.safetensors");
  int64_t blocks = 0, different = 0;
  for (const std::string& module : modules_) {
    if (is_qkv_or_z(module)) continue;
    const TestTensor w = weight(module), scales = empty_scales(w);
    const float ws2 = *file[module + ".weight_scale_2"].f32();
    ops::nvfp4_scales_four_over_six(test_.cx, w.view, {ws2, false}, scales.view);
    const Tensor theirs = file[module + ".weight_scale"];
    blocks += theirs.elements();
    for (int64_t i = 0; i < theirs.elements(); ++i) {
      const uint8_t a = scales.view.u8()[i], b = theirs.u8()[i];
      if (a == b) continue;
      ++different;
      float amax = 0;
      for (int64_t j = 0; j < kBlock; ++j) amax = std::max(amax, std::abs(w.view.f32()[i * kBlock + j]));
      const uint8_t six = nvfp4_block_scale(amax, ws2), four = nvfp4_block_scale_at_4(amax, ws2);
      EXPECT_EQ(b, a == six ? four : six) << module << " " << i;
    }
  }
  EXPECT_EQ(blocks, 385024);
  EXPECT_LE(different, blocks / 1000);
  EXPECT_EQ(different, 175);
}

// The tensor amax that ModelOpt quantizes with: shared by q/k/v and gate/up before the search, by qkv/z only at export.
class Groups {
 public:
  explicit Groups(std::map<std::string, float> amax) : amax_(std::move(amax)) {}

  float early(const std::string& module) const { return is_qkv_or_z(module) ? amax_.at(module) : shared(module); }
  float shared(const std::string& module) const {
    const size_t dot = module.rfind('.');
    const std::string parent = module.substr(0, dot + 1), name = module.substr(dot + 1);
    float largest = amax_.at(module);
    for (const std::vector<std::string>& group : {std::vector<std::string>{"q_proj", "k_proj", "v_proj"},
                                                  {"gate_proj", "up_proj"},
                                                  {"in_proj_qkv", "in_proj_z"}}) {
      if (std::find(group.begin(), group.end(), name) == group.end()) continue;
      for (const std::string& member : group) largest = std::max(largest, amax_.at(parent + member));
    }
    return largest;
  }

 private:
  std::map<std::string, float> amax_;
};

uint8_t clamped_e4m3(float x) {
  return f32_to_e4m3(std::clamp(x, kE4m3Min, kE4m3Max));
}

TEST_F(ModelOptScales, FourOverSixBytesAreEqualWithItsRatingEmulated) {
  const Golden file(kGolden / "four_over_six/tensors.safetensors");
  std::map<std::string, float> amax;
  for (const std::string& module : modules_) amax[module] = own_amax(module);
  const Groups groups(amax);
  int64_t blocks = 0, different = 0;
  for (const std::string& module : modules_) {
    const TestTensor w = weight(module);
    const float rated = groups.early(module), exported = groups.shared(module);
    // torch computes number / tensor as reciprocal * number.
    const float scale = 1 / (rated * (448.0f / 256) / 6) * 448, inverse = 1 / scale;
    const Tensor theirs = file[module + ".weight_scale"];
    for (int64_t b = 0; b < theirs.elements(); ++b) {
      const float* x = w.view.f32() + b * kBlock;
      float largest = 0;
      for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(x[i]));
      const auto rating = [&](float top) {
        const float step = e4m3_to_f32(f32_to_e4m3(std::clamp(top / 6 * scale, -448.0f, 448.0f))) * inverse;
        float squares[kBlock], error = 0;
        for (int64_t i = 0; i < kBlock; ++i) {
          const float difference = x[i] - nvfp4_value(nvfp4_code(x[i], step), step);
          squares[i] = difference * difference;
        }
        for (int64_t i = 0; i < kBlock / 2; ++i) error += squares[i] + squares[i + 8];  // eight lanes, as torch adds
        return error;
      };
      const float chosen = rating(largest * 1.5f) < rating(largest) ? largest * 1.5f : largest;
      different += clamped_e4m3(chosen / 6 * 256 / (exported / 6)) != theirs.u8()[b];
    }
    blocks += theirs.elements();
  }
  EXPECT_EQ(blocks, 458752);
  EXPECT_EQ(different, 0);
}

// ---- The differences from ModelOpt, each by its name ----

TEST_F(ModelOptScales, DifferenceModelOptReRoundsQkvZAfterTheSearch) {
  EXPECT_EQ(bytes_of_qkv_and_z_that_differ("mse_sweep", ops::nvfp4_scales_mse),
            (std::pair<int64_t, int64_t>{9974, 73728}));
  EXPECT_EQ(bytes_of_qkv_and_z_that_differ("four_over_six", ops::nvfp4_scales_four_over_six),
            (std::pair<int64_t, int64_t>{4652, 73728}));
}

TEST_F(ModelOptScales, DifferenceItsSearchedErrorOfQkvZIsLarger) {
  const Golden file(kGolden / "mse_sweep/tensors.safetensors");
  double theirs = 0, ours = 0;
  for (const std::string& module : modules_) {
    if (!is_qkv_or_z(module)) continue;
    const TestTensor w = weight(module), scales = empty_scales(w);
    const float ws2 = *file[module + ".weight_scale_2"].f32();
    ops::nvfp4_scales_mse(test_.cx, w.view, {ws2, false}, scales.view);
    for (int64_t b = 0; b < scales.view.elements(); ++b) {
      ours += error_of(w.view.f32() + b * kBlock, scales.view.u8()[b], ws2);
      theirs += error_of(w.view.f32() + b * kBlock, file[module + ".weight_scale"].u8()[b], ws2);
    }
  }
  EXPECT_NEAR(theirs / ours, 1.034, .001);
}

TEST_F(ModelOptScales, GptqCodesFromTheStoredHessian) {
  const std::string module = "model.layers.0.linear_attn.out_proj";
  const Golden file(kGolden / "gptq_parallel/out_proj.safetensors");
  const TestTensor w = weight(module), scales = empty_scales(w), codes({256, 128}, DType::u8);
  const Nvfp4TensorScale scale = {*file[module + ".weight_scale_2"].f32(), false};
  ops::nvfp4_scales_max(test_.cx, w.view, scale, scales.view);
  test::expect_same_bits(scales.view, file[module + ".weight_scale"], "scales of strategy max");
  const GptqReport report =
      gptq(test_.cx, w.view, file[module + ".hessian"], scale, scales.view, {.damping = .01}, codes.view);
  const Tensor theirs = file[module + ".weight"];
  int64_t different = 0;
  for (int64_t i = 0; i < 2 * codes.view.elements(); ++i) {
    const auto code = [&](const Tensor& t) {
      const int c = t.u8()[i / 2] >> (i % 2 * 4) & 15;
      return c == 8 ? 0 : c;
    };
    different += code(codes.view) != code(theirs);
  }
  EXPECT_EQ(different, 0);
  const Json values = golden_json("gptq_parallel/values.json")["linears"][module];
  EXPECT_NEAR(report.loss, values["relative_loss"].get<double>(), .02 * report.loss);
  EXPECT_NEAR(report.nearest_loss, values["relative_loss_rtn"].get<double>(), .02 * report.nearest_loss);
}

TEST_F(ModelOptScales, Fp8ScalesAreEqual) {
  const Json hashes = golden_json("fp8_attention/hashes.json")["linears"];
  EXPECT_EQ(hashes.size(), 8u);
  for (const auto& [module, golden] : hashes.items()) {
    EXPECT_EQ(fmt::format("{:08x}", f32_bits(fp8_scale(own_amax(module)))), golden["scale"]) << module;
  }
}

TEST_F(ModelOptScales, DifferenceModelOptDividesFp8WeightsInBf16) {
  const std::string module = "model.layers.3.self_attn.k_proj";
  const Golden file(kGolden / "fp8_attention/tensors.safetensors");
  const TestTensor w = weight(module), codes(w.view.shape(), DType::f8e4m3);
  const float scale = *file[module + ".weight_scale"].f32();
  const ops::Fp8Stats stats = ops::fp8_quantize(test_.cx, w.view, scale, codes.view);
  EXPECT_LT(stats.relative_error(), 1e-3);
  const Tensor theirs = file[module + ".weight"];
  int64_t different = 0;
  for (int64_t i = 0; i < theirs.elements(); ++i) {
    const int ours = codes.view.u8()[i], other = theirs.u8()[i];
    different += ours != other;
    EXPECT_LE(std::abs(ours - other), 1) << i;
    EXPECT_EQ(f32_to_e4m3(round_to_bf16(w.view.f32()[i] / scale)), other) << i;
  }
  EXPECT_EQ(different, 1902);
  EXPECT_LE(different, theirs.elements() * 3 / 100);
  const Json hashes = golden_json("fp8_attention/hashes.json")["linears"];
  for (const auto& [name, golden] : hashes.items()) {
    const TestTensor source = weight(name), emulated(source.view.shape(), DType::f8e4m3);
    const float s = fp8_scale(ops::tensor_amax(test_.cx, source.view).amax);
    for (int64_t i = 0; i < source.view.elements(); ++i) {
      emulated.view.u8()[i] = f32_to_e4m3(round_to_bf16(source.view.f32()[i] / s));
    }
    EXPECT_EQ(fnv1a(emulated.view), golden["weight"]) << name;
  }
}

// Relative errors at equal bits, and in which order strategies stand, on the shape of a 0.8B linear.
TEST(QuantizationNoise, OfGaussianWeights) {
  Rng rng(2026);
  const TestTensor w = TestTensor::normal(rng, {1024, 1024}, .02f), codes({1024, 512}, DType::u8),
                   scales({1024, 64}, DType::f8e4m3);
  test::TestContext test(2);
  const float amax = ops::tensor_amax(test.cx, w.view).amax;
  const auto noise = [&](float range, const auto& choose) {
    const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax, range);
    choose(test.cx, w.view, scale, scales.view);
    return ops::nvfp4_encode(test.cx, w.view, scale, scales.view, codes.view).relative_error();
  };
  EXPECT_NEAR(noise(kNvfp4Range, ops::nvfp4_scales_max), .00904, .01 * .00904);
  EXPECT_NEAR(noise(kNvfp4RangeFourOverSix, ops::nvfp4_scales_four_over_six), .00756, .01 * .00756);
  EXPECT_NEAR(noise(kNvfp4Range, ops::nvfp4_scales_mse), .00659, .01 * .00659);
}

}  // namespace
}  // namespace nibble::quantize
