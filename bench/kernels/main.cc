// nibble_bench_kernels [OP …]: all ops without one. First the copy bandwidth that the results stand beside.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "base/rng.h"
#include "bench/kernels/bench.h"
#include "tensor/device.h"
#include "tensor/numeric.h"

namespace nibble::bench {

Tensor Operands::zeros(DType dtype, const Shape& shape) {
  auto buffer = Buffer::on(stream_.device(), static_cast<size_t>(shape.elements()) * size_of(dtype));
  NIBBLE_CHECK(buffer.ok());
  buffers_.push_back(std::move(*buffer));
  return buffers_.back().tensor(dtype, shape);
}

Tensor Operands::normal(DType dtype, const Shape& shape, float scale) {
  if (numbers_.empty()) {
    Rng rng(7);
    numbers_.resize(size_t{1} << 22);
    for (float& x : numbers_) x = rng.normal();
  }
  const Tensor tensor = zeros(dtype, shape);
  const size_t count = std::min(numbers_.size(), static_cast<size_t>(shape.elements()));
  std::vector<std::byte> block(count * size_of(dtype));
  next_ += 12345;
  for (size_t i = 0; i < count; ++i) {
    const float x = scale * numbers_[(i + next_) % numbers_.size()];
    if (dtype == DType::bf16) {
      reinterpret_cast<uint16_t*>(block.data())[i] = f32_to_bf16(x);
    } else {
      reinterpret_cast<float*>(block.data())[i] = x;
    }
  }
  for (size_t at = 0; at < tensor.bytes(); at += block.size()) {
    stream_.copy(block.data(), static_cast<std::byte*>(tensor.raw()) + at, std::min(block.size(), tensor.bytes() - at));
  }
  NIBBLE_CHECK(stream_.wait().ok());
  return tensor;
}

Tensor Operands::ints(const std::vector<int32_t>& values) {
  const Tensor tensor = zeros(DType::i32, {static_cast<int64_t>(values.size())});
  stream_.copy(values.data(), tensor.raw(), tensor.bytes());
  NIBBLE_CHECK(stream_.wait().ok());
  return tensor;
}

double time_us(Stream& stream, int calls, const std::function<void()>& work) {
  auto graph = stream.capture(work);
  if (!graph.ok()) {
    fmt::print("{}\n", graph.status().text());
    return NAN;
  }
  // Half a second of work: an idle GPU takes its time to reach its clocks.
  for (double warm = 0; warm < 500;) {
    const auto some = stream.time_ms([&] {
      for (int i = 0; i < 10; ++i) stream.replay(**graph);
    });
    if (!some.ok()) break;
    warm += std::max(*some, 0.1);
  }
  std::vector<double> ms;
  for (int i = 0; i < 11; ++i) {
    const auto one = stream.time_ms([&] { stream.replay(**graph); });
    if (!one.ok()) {
      fmt::print("{}\n", one.status().text());
      return NAN;
    }
    ms.push_back(*one);
  }
  std::ranges::sort(ms);
  return ms[ms.size() / 2] * 1000 / calls;
}

void print(const char* op, const std::string& shape, double us, double bytes, double flops) {
  fmt::print("{:14} {:28} {:9.2f} us {:7.0f} GB/s {:7.1f} TFLOP/s\n", op, shape, us, bytes / us * 1e-3,
             flops / us * 1e-6);
  std::fflush(stdout);
}

}  // namespace nibble::bench

int main(int argc, char** argv) {
  using namespace nibble;
  const Device device{DeviceKind::cuda, 0};
  auto stream = Stream::open(device);
  if (!stream.ok()) {
    fmt::print("{}\n", stream.status().text());
    return 1;
  }
  ThreadPool pool(1);
  Context cx(pool, Numeric::bf16_act, **stream);
  if (!cx.arena.reserve(size_t{1} << 30).ok()) return 1;
  {
    bench::Operands operands(**stream);
    const Tensor from = operands.zeros(DType::f32, {1 << 28}), to = operands.zeros(DType::f32, {1 << 28});
    const double us = bench::time_us(**stream, 4, [&] {
      for (int i = 0; i < 4; ++i) (*stream)->copy(from, to);
    });
    bench::print("copy", "1 GiB", us, 2.0 * static_cast<double>(from.bytes()), 0);
  }
  const struct {
    std::string_view name;
    void (*run)(Context&);
  } benches[] = {{"delta_mixer", bench::delta_mixer}};
  for (const auto& bench : benches) {
    const bool wanted = argc < 2 || std::any_of(argv + 1, argv + argc, [&](const char* a) { return a == bench.name; });
    if (wanted) bench.run(cx);
  }
  return (*stream)->wait().ok() ? 0 : 1;
}
