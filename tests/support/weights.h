// Random linear weights in every format, between guard bytes and at odd addresses, as a mapped file may hold them.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/linear/linear.h"
#include "tensor/numeric.h"
#include "tests/support/op_test.h"

namespace nibble::test {

/// A weight, its memory, and what ops/linear/linear.h calls w', a and b, in f64.
struct TestWeight {
  TestTensor weight, block_scale, channel_scale, low_rank_a, low_rank_b;
  ops::Linear linear;
  std::vector<double> decoded;  // [out,in]
  std::vector<double> a, b;     // [r,in], [out,r]; empty without a branch

  /// c [out] of the contract.
  std::vector<double> factors() const {
    if (!linear.channel_scale.empty()) return channel_scale.doubles();
    return std::vector<double>(static_cast<size_t>(linear.out), linear.tensor_scale);
  }
};

inline TestWeight random_weight(Rng& rng, ops::WeightFormat format, int64_t out, int64_t in) {
  TestWeight w;
  w.linear.format = format;
  w.linear.out = out;
  w.linear.in = in;
  w.decoded.resize(static_cast<size_t>(out * in));
  if (format == ops::WeightFormat::nvfp4) {
    w.weight = TestTensor({out, in / 2}, DType::u8, 1);
    w.block_scale = TestTensor({out, in / 16}, DType::f8e4m3, 3);
    uint8_t *codes = w.weight.view.u8(), *scales = w.block_scale.view.u8();
    for (int64_t i = 0; i < out * in / 2; ++i) codes[i] = static_cast<uint8_t>(rng.below(256));
    // Any scale an exporter can write: 0x01 .. 0x7E.
    for (int64_t i = 0; i < out * in / 16; ++i) scales[i] = static_cast<uint8_t>(1 + rng.below(0x7E));
    for (int64_t i = 0; i < out * in; ++i) {
      const auto code = static_cast<uint8_t>(codes[i / 2] >> (i % 2 * 4) & 0xF);
      w.decoded[static_cast<size_t>(i)] = static_cast<double>(e2m1_to_f32(code)) * e4m3_to_f32(scales[i / 16]);
    }
    w.linear.block_scale = w.block_scale.view;
    w.linear.tensor_scale = 0.00123f;
  } else if (format == ops::WeightFormat::fp8) {
    w.weight = TestTensor({out, in}, DType::f8e4m3, 1);
    for (int64_t i = 0; i < out * in; ++i) {
      const auto byte = static_cast<uint8_t>(rng.below(0x7F) | rng.below(2) << 7);  // any but NaN
      w.weight.view.u8()[i] = byte;
      w.decoded[static_cast<size_t>(i)] = e4m3_to_f32(byte);
    }
    w.linear.tensor_scale = 0.00321f;
  } else {
    const DType dtype = format == ops::WeightFormat::bf16 ? DType::bf16 : DType::f32;
    w.weight = TestTensor({out, in}, dtype, 1);
    auto* bytes = static_cast<std::byte*>(w.weight.view.raw());
    for (int64_t i = 0; i < out * in; ++i) {
      const float x = rng.normal();
      const uint16_t rounded = f32_to_bf16(x);
      if (dtype == DType::bf16) {
        std::memcpy(bytes + 2 * i, &rounded, sizeof rounded);
      } else {
        std::memcpy(bytes + 4 * i, &x, sizeof x);
      }
      w.decoded[static_cast<size_t>(i)] = dtype == DType::bf16 ? bf16_to_f32(rounded) : x;
    }
  }
  w.linear.weight = w.weight.view;
  return w;
}

/// An FP8 weight with a scale per output.
inline TestWeight random_fp8_by_channel(Rng& rng, int64_t out, int64_t in) {
  TestWeight w = random_weight(rng, ops::WeightFormat::fp8, out, in);
  w.channel_scale = TestTensor::uniform(rng, {out}, 0.0005f, 0.005f);
  w.linear.tensor_scale = 1;
  w.linear.channel_scale = w.channel_scale.view;
  return w;
}

/// Gives a weight a low-rank branch of about the size of its product.
inline void add_low_rank(Rng& rng, TestWeight& w, int64_t rank) {
  const auto random = [&](const Shape& shape, TestTensor& memory, Tensor& view, std::vector<double>& values) {
    memory = TestTensor(shape, DType::bf16, 1);
    view = memory.view;
    for (int64_t i = 0; i < shape.elements(); ++i) {
      const uint16_t bits = f32_to_bf16(rng.normal());
      std::memcpy(static_cast<std::byte*>(view.raw()) + 2 * i, &bits, sizeof bits);
      values.push_back(bf16_to_f32(bits));
    }
  };
  random({rank, w.linear.in}, w.low_rank_a, w.linear.low_rank_a, w.a);
  random({w.linear.out, rank}, w.low_rank_b, w.linear.low_rank_b, w.b);
}

}  // namespace nibble::test
