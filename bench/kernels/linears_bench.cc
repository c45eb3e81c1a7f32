// linears_bench: how long the products of one step of a 9B take on a GPU, beside what its memory or tensor cores allow.
// Weights rotate among enough copies that none stays in the cache; each time is the mean over a recorded graph of
// launches, the median of several replays.
#include <fmt/format.h>

#include <algorithm>

#include "base/rng.h"
#include "ops/linear/linears.h"
#include "tensor/device.h"

namespace nibble {
namespace {

struct Shape2 {
  const char* what;
  int64_t out, in;
  bool swiglu;
  ops::WeightFormat format = ops::WeightFormat::nvfp4;
};
constexpr Shape2 kShapes[] = {
    {"gate+up swiglu", 12288, 4096, true}, {"down", 4096, 12288, false},
    {"qkv+z", 12288, 4096, false},         {"out_proj", 4096, 4096, false},
    {"lm_head", 248320, 4096, false},      {"lm_head bf16", 248320, 4096, false, ops::WeightFormat::bf16},
    {"0.8b down", 1024, 3584, false},
};

Result<ops::Linear> random_linear(Context& cx, const Shape2& shape, std::vector<Buffer>& buffers) {
  Rng rng(7);
  const bool packed = shape.format == ops::WeightFormat::nvfp4;
  Buffer codes(static_cast<size_t>(shape.out * shape.in / 2 * (packed ? 1 : 4)));
  Buffer scales(static_cast<size_t>(shape.out * shape.in / 16));
  auto* words = reinterpret_cast<uint32_t*>(codes.data());
  uint32_t x = rng.below(1u << 30) | 1;
  for (size_t i = 0; i < codes.bytes() / 4; ++i) {
    x = x * 1664525u + 1013904223u;
    // BF16 weights: exponents near 2^-6.
    words[i] = packed ? x ^ x >> 15 : (x & 0x807F807Fu) | 0x3C803C80u;
  }
  for (size_t i = 0; i < scales.bytes(); ++i) scales.data()[i] = static_cast<std::byte>(0x30 + (i * 7 + i / 13) % 16);
  ops::Linear w;
  w.format = shape.format;
  w.out = shape.out;
  w.in = shape.in;
  if (packed) {
    w.weight = codes.tensor(DType::u8, {shape.out, shape.in / 2});
    w.block_scale = scales.tensor(DType::f8e4m3, {shape.out, shape.in / 16});
    w.tensor_scale = 0.01f;
  } else {
    w.weight = codes.tensor(DType::bf16, {shape.out, shape.in});
  }
  NIBBLE_TRY(linear, ops::linear_to_device(cx, w, buffers));
  NIBBLE_RETURN_IF_ERROR(cx.stream->wait());
  return linear;
}

Status run() {
  NIBBLE_TRY(info, open_device({DeviceKind::cuda, 0}));
  NIBBLE_TRY(stream, Stream::open({DeviceKind::cuda, 0}));
  ThreadPool pool(1);
  Context cx(pool, Numeric::bf16_act, *stream);
  NIBBLE_RETURN_IF_ERROR(cx.arena.reserve(size_t{1} << 30));
  fmt::print("{}\n{:<16} {:>13} {:>6} {:>9} {:>8} {:>9}\n", info.name, "product", "shape", "T", "us", "GB/s",
             "TFLOP/s");
  for (const Shape2& shape : kShapes) {
    std::vector<Buffer> buffers;
    std::vector<ops::Linear> copies;
    size_t bytes = 0;
    while (copies.size() < 2 || bytes < (size_t{256} << 20)) {
      NIBBLE_TRY(linear, random_linear(cx, shape, buffers));
      bytes += linear.weight_bytes();
      copies.push_back(linear);
    }
    for (const int64_t T : {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048}) {
      if (shape.out > 100000 && T > 128) continue;
      std::vector<uint16_t> noise(static_cast<size_t>(T * shape.in));
      Rng rng(9);
      for (uint16_t& x : noise) x = static_cast<uint16_t>(0x3F00 | (rng.below(2) << 15) | rng.below(128));
      NIBBLE_TRY(xs, Buffer::on(cx.device, noise.size() * 2));
      NIBBLE_TRY(ys, Buffer::on(cx.device, static_cast<size_t>(T * shape.out) * 4));
      const Tensor x = xs.tensor(DType::bf16, {T, shape.in});
      Tensor y = ys.tensor(shape.out > 100000 ? DType::f32 : DType::bf16, {T, shape.out});
      stream->copy(noise.data(), x.raw(), x.bytes());
      const int launches = T > 64 ? 4 : 32;
      size_t next = 0;
      const auto one = [&] {
        const ops::Linear &a = copies[next % copies.size()], &b = copies[(next + 1) % copies.size()];
        next += shape.swiglu ? 2 : 1;
        if (shape.swiglu) return ops::linear_swiglu(cx, x, a, b, y);
        const ops::LinearOutput output[] = {{&a, y}};
        ops::linears(cx, x, output);
      };
      one();
      NIBBLE_RETURN_IF_ERROR(stream->wait());
      NIBBLE_TRY(graph, stream->capture([&] {
        for (int i = 0; i < launches; ++i) one();
      }));
      std::vector<double> times;
      for (int i = 0; i < 7; ++i) {
        NIBBLE_TRY(ms, stream->time_ms([&] { stream->replay(*graph); }));
        times.push_back(ms * 1000 / launches);
      }
      std::ranges::sort(times);
      const double us = times[times.size() / 2],
                   weights = static_cast<double>(copies[0].weight_bytes()) * (shape.swiglu ? 2 : 1);
      const double flops = 2.0 * static_cast<double>(T * shape.out * shape.in) * (shape.swiglu ? 2 : 1);
      fmt::print("{:<16} {:>6}x{:<6} {:>6} {:>9.2f} {:>8.0f} {:>9.1f}\n", shape.what, shape.out, shape.in, T, us,
                 weights / us / 1e3, flops / us / 1e6);
    }
  }
  return {};
}

}  // namespace
}  // namespace nibble

int main() {
  const nibble::Status status = nibble::run();
  if (status.ok()) return 0;
  fmt::print(stderr, "{}\n", status.text());
  return 1;
}
