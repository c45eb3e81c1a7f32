// nibble_bench_attention [FILTER]: gated_attention of a 9B layer on a GPU. Each case runs over so many layers' caches
// that none lies in the GPU's cache when it is read, recorded as one graph; the median of several replays counts.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/rng.h"
#include "ops/attention/gated_attention.h"
#include "tensor/device.h"
#include "tensor/numeric.h"

namespace nibble {
namespace {

constexpr int64_t kHeads = 16, kKvHeads = 4, kSize = 256, kPositionBytes = 2 * kKvHeads * kSize * 2;
constexpr int64_t kReach = 32768;
constexpr size_t kPoolBytes = size_t{4} << 30, kCold = size_t{512} << 20;

struct Case {
  const char* name;
  int64_t sequences, rows, past;  // rows: of each sequence
};

const std::vector<Case> kCases = {
    {"decode", 1, 1, 128},       {"decode", 1, 1, 2048},     {"decode", 1, 1, 16384}, {"decode", 1, 1, 65536},
    {"decode", 8, 1, 2048},      {"decode", 64, 1, 2048},    {"verify", 1, 4, 2048},  {"verify", 16, 4, 2048},
    {"prefill", 1, 128, 0},      {"prefill", 1, 512, 0},     {"prefill", 1, 2048, 0}, {"prefill", 1, 8192, 0},
    {"prefill", 1, 2048, 14336}, {"prefill", 1, 100, 32668},
};

struct Gpu {
  explicit Gpu(std::unique_ptr<Stream> opened) : stream(std::move(opened)), cx(threads, Numeric::bf16_act, *stream) {}
  ThreadPool threads{1};
  std::unique_ptr<Stream> stream;
  Context cx;
  Buffer pool;
  size_t used = 0;

  Tensor take(DType dtype, Shape shape) {
    const size_t bytes = static_cast<size_t>(shape.elements()) * size_of(dtype);
    NIBBLE_CHECK(used + bytes <= pool.bytes());
    Tensor tensor(pool.data() + used, dtype, shape, stream->device());
    used += (bytes + 255) / 256 * 256;
    return tensor;
  }
  Tensor list(const std::vector<int32_t>& values) {
    const Tensor tensor = take(DType::i32, {static_cast<int64_t>(values.size())});
    stream->copy(values.data(), tensor.raw(), tensor.bytes());
    return tensor;
  }
};

/// Random numbers all over the pool: one block, copied again and again.
Status fill(Gpu& gpu) {
  std::vector<uint16_t> block(size_t{8} << 20);
  Rng rng(1);
  for (uint16_t& x : block) x = f32_to_bf16(rng.uniform(-2, 2));
  const size_t bytes = block.size() * 2;
  for (size_t at = 0; at < gpu.pool.bytes(); at += bytes) {
    gpu.stream->copy(at == 0 ? static_cast<const void*>(block.data()) : gpu.pool.data(), gpu.pool.data() + at, bytes);
  }
  return gpu.stream->wait();
}

Result<double> median_ms(Gpu& gpu, const std::function<void()>& work) {
  std::vector<double> times;
  for (int i = 0; i < 8; ++i) {
    NIBBLE_TRY(ms, gpu.stream->time_ms(work));
    if (i > 0) times.push_back(ms);
  }
  std::ranges::nth_element(times, times.begin() + 3);
  return times[3];
}

struct Layer {
  Tensor q_gate, k, v, keys, values, y;
};

Result<double> microseconds(Gpu& gpu, const Case& c) {
  gpu.used = 0;
  const int64_t total = c.sequences * c.rows, used = c.past + c.rows;
  // A recorded step reaches further than its conversation does: its caches then overlap, but nothing reads the rest.
  const int64_t capacity = c.sequences == 1 && c.rows <= 16 ? std::max(used, kReach) : used;
  std::vector<int32_t> begin, slot, position(static_cast<size_t>(c.sequences), static_cast<int32_t>(c.past));
  for (int64_t s = 0; s <= c.sequences; ++s) begin.push_back(static_cast<int32_t>(s * c.rows));
  for (int64_t s = 0; s < c.sequences; ++s) slot.push_back(static_cast<int32_t>(c.sequences - 1 - s));
  const ops::Batch batch{c.sequences, gpu.list(begin), gpu.list(slot), gpu.list(position), c.rows, capacity};
  ops::GatedAttentionWeights weights{gpu.take(DType::f32, {kSize}), gpu.take(DType::f32, {kSize}), 1e-6f, 64, 1e7};
  gpu.stream->fill_zero(weights.q_norm.raw(), weights.q_norm.bytes());
  gpu.stream->fill_zero(weights.k_norm.raw(), weights.k_norm.bytes());

  const size_t before = gpu.used;
  const auto cache = [&] {
    const Tensor read = gpu.take(DType::bf16, {c.sequences, used, kKvHeads, kSize});
    return Tensor(read.raw(), DType::bf16, {c.sequences, capacity, kKvHeads, kSize}, read.device());
  };
  std::vector<Layer> layers;
  while (layers.empty() || (layers.size() < 64 && gpu.used < kCold && 2 * gpu.used - before < kPoolBytes / 2)) {
    layers.push_back({gpu.take(DType::bf16, {total, kHeads, 2 * kSize}),
                      gpu.take(DType::bf16, {total, kKvHeads, kSize}), gpu.take(DType::bf16, {total, kKvHeads, kSize}),
                      cache(), cache(), gpu.take(DType::bf16, {total, kHeads, kSize})});
  }
  const int64_t rounds = std::max<int64_t>(1, (c.rows > 16 ? 4 : 128) / static_cast<int64_t>(layers.size()));
  NIBBLE_TRY(graph, gpu.stream->capture([&] {
    for (int64_t i = 0; i < rounds; ++i) {
      for (Layer& l : layers) {
        ops::gated_attention(gpu.cx, batch, l.q_gate, l.k, l.v, weights, l.keys, l.values, l.y);
      }
    }
  }));
  NIBBLE_TRY(ms, median_ms(gpu, [&] { gpu.stream->replay(*graph); }));
  return ms * 1e3 / static_cast<double>(rounds * static_cast<int64_t>(layers.size()));
}

/// Bytes read and written per second by a copy.
Result<double> copy_rate(Gpu& gpu) {
  const size_t bytes = size_t{1} << 30;
  NIBBLE_TRY(ms, median_ms(gpu, [&] { gpu.stream->copy(gpu.pool.data(), gpu.pool.data() + bytes, bytes); }));
  return 2 * static_cast<double>(bytes) / (ms * 1e-3);
}

Status run(std::string_view filter) {
  const Device device{DeviceKind::cuda, 0};
  NIBBLE_TRY(info, open_device(device));
  NIBBLE_TRY(stream, Stream::open(device));
  Gpu gpu(std::move(stream));
  NIBBLE_TRY(pool, Buffer::on(device, kPoolBytes));
  gpu.pool = std::move(pool);
  NIBBLE_RETURN_IF_ERROR(gpu.cx.arena.reserve(size_t{1} << 30));
  NIBBLE_RETURN_IF_ERROR(fill(gpu));
  NIBBLE_TRY(rate, copy_rate(gpu));
  fmt::print("{}: copy {:.0f} GB/s\n{:8} {:>4} {:>6} {:>7} {:>9} {:>7} {:>7} {:>6}\n", info.name, rate * 1e-9, "gated",
             "B", "rows", "past", "us", "GB/s", "of copy", "TFLOP/s");
  for (const Case& c : kCases) {
    if (std::string_view(c.name).find(filter) == std::string_view::npos) continue;
    NIBBLE_TRY(us, microseconds(gpu, c));
    const double rows = static_cast<double>(c.rows), past = static_cast<double>(c.past);
    const double keys = static_cast<double>(c.sequences) * (past + rows);
    const double bytes = keys * kPositionBytes + static_cast<double>(c.sequences) * rows * (3 * kHeads + 2 * kKvHeads) *
                                                     static_cast<double>(kSize) * 2;
    const double flops = 4.0 * kHeads * kSize * static_cast<double>(c.sequences) * rows * (past + (rows + 1) / 2);
    fmt::print("{:8} {:4} {:6} {:7} {:9.2f} {:7.0f} {:6.0f}% {:7.1f}\n", c.name, c.sequences, c.rows, c.past, us,
               bytes / us * 1e-3, bytes / us * 1e6 / rate * 100, flops / us * 1e-6);
    std::fflush(stdout);
  }
  return {};
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  const nibble::Status status = nibble::run(argc > 1 ? argv[1] : "");
  if (!status.ok()) fmt::print(stderr, "{}\n", status.text());
  return status.ok() ? 0 : 1;
}
