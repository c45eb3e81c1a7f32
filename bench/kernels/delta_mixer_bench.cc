#include <fmt/format.h>

#include <numeric>

#include "bench/kernels/bench.h"
#include "ops/gated_delta/delta_mixer.h"

namespace nibble::bench {
namespace {

struct Dims {
  const char* name;
  int64_t key_heads, heads, key_size = 128, value_size = 128;
  int64_t channels() const { return 2 * key_heads * key_size + heads * value_size; }
};

/// `sequences` of `rows` each; as many layers as make the states larger than the L2 cache by far.
void time_batch(Context& cx, const Dims& d, int64_t sequences, int64_t rows) {
  Operands operands(*cx.stream);
  const int64_t T = sequences * rows, state = sequences * d.heads * d.key_size * d.value_size;
  const int layers = static_cast<int>(std::clamp<int64_t>((int64_t{256} << 20) / (state * 4), 2, 96));
  std::vector<int32_t> begin, slot, position(static_cast<size_t>(sequences), 100);
  for (int64_t s = 0; s <= sequences; ++s) begin.push_back(static_cast<int32_t>(s * rows));
  for (int64_t s = 0; s < sequences; ++s) slot.push_back(static_cast<int32_t>(sequences - 1 - s));
  const ops::Batch batch{sequences, operands.ints(begin), operands.ints(slot), operands.ints(position), rows, 1 << 20};

  struct Layer {
    Tensor mix, z, a, b, conv_state, S, y;
    ops::DeltaMixerWeights w;
  };
  std::vector<Layer> all;
  // Long prompts need no copies of everything: their rows alone exceed the cache.
  for (int i = 0; i < layers; ++i) {
    if (i > 1 && rows > 64) {
      all.push_back(all[static_cast<size_t>(i - 2)]);
      continue;
    }
    all.push_back({.mix = operands.normal(DType::bf16, {T, d.channels()}),
                   .z = operands.normal(DType::bf16, {T, d.heads, d.value_size}),
                   .a = operands.normal(DType::f32, {T, d.heads}),
                   .b = operands.normal(DType::f32, {T, d.heads}),
                   .conv_state = operands.normal(DType::f32, {sequences, 3, d.channels()}),
                   .S = operands.normal(DType::f32, {sequences, d.heads, d.key_size, d.value_size}),
                   .y = operands.zeros(DType::bf16, {T, d.heads, d.value_size}),
                   .w = {.conv = operands.normal(DType::f32, {d.channels(), 4}),
                         .a_log = operands.normal(DType::f32, {d.heads}),
                         .dt_bias = operands.normal(DType::f32, {d.heads}),
                         .norm = operands.normal(DType::f32, {d.value_size})}});
  }
  const double us = time_us(*cx.stream, layers, [&] {
    for (Layer& l : all) ops::delta_mixer(cx, batch, l.mix, l.z, l.a, l.b, l.w, l.conv_state, l.S, l.y);
  });
  const double row_bytes = static_cast<double>(2 * d.channels() + 4 * d.heads * d.value_size + 8 * d.heads);
  const double past_bytes = static_cast<double>(sequences * 2 * 12 * d.channels() + 16 * d.channels());
  const double bytes = 8.0 * static_cast<double>(state) + past_bytes + static_cast<double>(T) * row_bytes;
  const double flops = 8.0 * static_cast<double>(T * d.heads * d.key_size * d.value_size);
  print("delta_mixer", fmt::format("{} B={} T={}", d.name, sequences, rows), us, bytes, flops);
}

}  // namespace

void delta_mixer(Context& cx) {
  const Dims nine{"9B", 16, 32};
  for (const int64_t sequences : {1, 8, 64}) time_batch(cx, nine, sequences, 1);
  for (const int64_t rows : {4, 16}) time_batch(cx, nine, 1, rows);
  for (const int64_t rows : {128, 512, 2048, 8192}) time_batch(cx, nine, 1, rows);
  time_batch(cx, nine, 4, 512);
  for (const Dims& other : {Dims{"0.8B", 16, 16}, Dims{"27B", 16, 48}}) {
    time_batch(cx, other, 1, 1);
    time_batch(cx, other, 1, 2048);
  }
}

}  // namespace nibble::bench
