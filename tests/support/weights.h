// Random linear weights in every format, between guard bytes and at odd addresses, as a mapped file may hold them.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/linear/linear.h"
#include "tensor/numeric.h"
#include "tests/support/op_test.h"

namespace nibble::test {

/// A weight, its memory, and w' of ops/linear/linear.h in f64.
struct TestWeight {
  TestTensor weight, block_scale;
  ops::Linear linear;
  std::vector<double> decoded;  // [out,in]
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

}  // namespace nibble::test
