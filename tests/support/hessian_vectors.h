// Golden vector G4 and its kin: a weight [4,32], 64 inputs whose neighbouring channels are correlated, their Hessian.
// Generator: a 32-bit congruence, four of whose numbers make one nearly normal one; written down with the vectors.
#pragma once

#include <map>
#include <string>

#include "ops/quant/nvfp4.h"
#include "tests/support/op_test.h"

namespace nibble::test {

struct HessianVectors {
  static constexpr int64_t kRows = 4, kColumns = 32, kTokens = 64;
  TestTensor w{{kRows, kColumns}}, x{{kTokens, kColumns}}, hessian{{kColumns, kColumns}};
  uint64_t w_hash = 0xcbf29ce484222325, x_hash = 0xcbf29ce484222325;
  Nvfp4TensorScale scale;

  explicit HessianVectors(uint32_t seed) : state_(seed) {
    float amax = 0;
    for (float& value : w.values()) {
      value = round_to_bf16(normal() * .05f);
      amax = std::max(amax, std::abs(value));
      add(w_hash, value);
    }
    for (int64_t t = 0; t < kTokens; ++t) {
      float* row = x.view.f32() + t * kColumns;
      for (int64_t k = 0; k < kColumns; ++k) {
        const float g = normal(), before = k > 0 ? .75f * row[k - 1] : 0;
        row[k] = round_to_bf16(g + before);
        add(x_hash, row[k]);
      }
    }
    scale = nvfp4_tensor_scale(amax);
    for (int64_t i = 0; i < kColumns; ++i) {
      for (int64_t j = 0; j < kColumns; ++j) {
        double sum = 0;
        for (int64_t t = 0; t < kTokens; ++t) {
          sum += static_cast<double>(x.view.f32()[t * kColumns + i]) * x.view.f32()[t * kColumns + j];
        }
        hessian.view.f32()[i * kColumns + j] = static_cast<float>(2 * sum / kTokens);
      }
    }
  }

  TestTensor scales_max(Context& cx) const {
    TestTensor scales({kRows, kColumns / kNvfp4Block}, DType::f8e4m3);
    ops::nvfp4_scales_max(cx, w.view, scale, scales.view);
    return scales;
  }

  /// max, sweep, hessian.
  std::map<std::string, TestTensor> all_scales(Context& cx) const {
    constexpr int64_t kBlock = kNvfp4Block, kBlocks = kColumns / kBlock;
    std::map<std::string, TestTensor> scales;
    scales["max"] = scales_max(cx);
    scales["sweep"] = TestTensor({kRows, kBlocks}, DType::f8e4m3);
    ops::nvfp4_scales_mse(cx, w.view, scale, scales["sweep"].view);
    const TestTensor blocks({kBlocks, kBlock, kBlock});
    for (int64_t b = 0; b < kBlocks; ++b) {
      for (int64_t i = 0; i < kBlock; ++i) {
        for (int64_t j = 0; j < kBlock; ++j) {
          blocks.view.f32()[(b * kBlock + i) * kBlock + j] =
              hessian.view.f32()[(b * kBlock + i) * kColumns + b * kBlock + j] / 2;
        }
      }
    }
    scales["hessian"] = TestTensor({kRows, kBlocks}, DType::f8e4m3);
    ops::nvfp4_scales_hessian(cx, w.view, scale, blocks.view, scales["hessian"].view);
    return scales;
  }

 private:
  float normal() {
    float sum = 0;
    for (int j = 0; j < 4; ++j) {
      state_ = state_ * 1664525 + 1013904223;
      sum += static_cast<float>(state_ >> 8) * 0x1p-24f - .5f;
    }
    return sum;
  }
  static void add(uint64_t& hash, float bf16) {
    const uint32_t bits = f32_bits(bf16) >> 16;
    hash = (hash ^ (bits & 255)) * 0x100000001b3;
    hash = (hash ^ (bits >> 8)) * 0x100000001b3;
  }

  uint32_t state_;
};

}  // namespace nibble::test
