#include "ops/gated_delta/delta_mixer.h"

#include <numeric>
#include <optional>

#include "ops/conv/conv_silu.h"
#include "ops/gated_delta/delta_gates.h"
#include "ops/gated_delta/delta_mixer_backends.h"
#include "ops/gated_delta/gated_delta.h"
#include "ops/norm/l2_norm.h"
#include "ops/shape/split.h"
#include "tests/support/cuda_test.h"
#include "tests/support/oracle/delta_mixer.h"

namespace nibble {
namespace {

using test::TestTensor;

struct Dims {
  const char* name;
  int64_t key_heads, heads, key_size, value_size;
  ops::Gate gate = ops::Gate::silu;
  int64_t channels() const { return 2 * key_heads * key_size + heads * value_size; }
};

const std::vector<Dims> kDims = {
    {"small", 2, 4, 16, 32},
    {"three value heads, odd slices", 1, 3, 32, 48, ops::Gate::sigmoid},
    {"real size", 1, 2, 128, 128},
    {"two key heads", 2, 4, 128, 128},
    {"three value heads", 1, 3, 128, 128, ops::Gate::sigmoid},
    {"large", 1, 2, 256, 256},
};

struct Sequence {
  int64_t rows, slot, position;
};

/// The operands of a batch, in f32 but at values that BF16 holds where a GPU has BF16.
struct Case {
  Dims d;
  std::vector<Sequence> sequences;
  std::vector<int32_t> begin{0}, slot, position;
  TestTensor mix, z, a, b, conv, a_log, dt_bias, norm, conv_state, S;

  Case(Rng& rng, const Dims& dims, std::vector<Sequence> list, int64_t slots) : d(dims), sequences(std::move(list)) {
    for (const Sequence& s : sequences) {
      begin.push_back(begin.back() + static_cast<int32_t>(s.rows));
      slot.push_back(static_cast<int32_t>(s.slot));
      position.push_back(static_cast<int32_t>(s.position));
    }
    const int64_t T = begin.back();
    const auto rounded = [&](TestTensor x) { return test::to_f32(test::to_bf16(x)); };
    mix = rounded(TestTensor::normal(rng, {T, d.channels()}));
    z = rounded(TestTensor::normal(rng, {T, d.heads, d.value_size}));
    a = TestTensor::normal(rng, {T, d.heads}, 3);
    b = TestTensor::normal(rng, {T, d.heads}, 2);
    conv = TestTensor::normal(rng, {d.channels(), 4}, 0.5f);
    // Heads that keep for long beside heads that forget at once.
    a_log = TestTensor::uniform(rng, {d.heads}, -6, 3);
    dt_bias = TestTensor::normal(rng, {d.heads});
    norm = TestTensor::uniform(rng, {d.value_size}, 0.5f, 1.5f);
    conv_state = rounded(TestTensor::normal(rng, {slots, 3, d.channels()}));
    S = TestTensor::normal(rng, {slots, d.heads, d.key_size, d.value_size}, 0.3f);
  }
  int64_t rows() const { return begin.back(); }
  int64_t longest() const {
    int64_t most = 0;
    for (const Sequence& s : sequences) most = std::max(most, s.rows);
    return most;
  }
  ops::DeltaMixerWeights weights() const {
    return {.conv = conv.view, .a_log = a_log.view, .dt_bias = dt_bias.view, .norm = norm.view, .gate = d.gate};
  }
};

struct Result {
  TestTensor y, conv_state, S;
};

Result run_cpu(Context& cx, const Case& c) {
  Result r{TestTensor({c.rows(), c.d.heads, c.d.value_size}), c.conv_state.copy(), c.S.copy()};
  std::vector<int32_t> begin = c.begin, slot = c.slot, position = c.position;
  const auto ints = [](std::vector<int32_t>& v) {
    return Tensor(v.data(), DType::i32, {static_cast<int64_t>(v.size())});
  };
  const ops::Batch batch{static_cast<int64_t>(slot.size()), ints(begin), ints(slot), ints(position), c.longest(), 0};
  const test::Unchanged unchanged{&c.mix, &c.z, &c.a, &c.b};
  ops::delta_mixer(cx, batch, c.mix.view, c.z.view, c.a.view, c.b.view, c.weights(), r.conv_state.view, r.S.view,
                   r.y.view);
  return r;
}

/// What a GPU holds between calls.
struct OnGpu {
  OnGpu(test::CudaContext& gpu, const Case& c)
      : gpu(gpu),
        c(c),
        mix(gpu, test::to_bf16(c.mix)),
        z(gpu, test::to_bf16(c.z)),
        a(gpu, c.a),
        b(gpu, c.b),
        conv(gpu, c.conv),
        a_log(gpu, c.a_log),
        dt_bias(gpu, c.dt_bias),
        norm(gpu, c.norm),
        conv_state(gpu, c.conv_state),
        S(gpu, c.S),
        y(gpu, TestTensor({c.rows(), c.d.heads, c.d.value_size}, DType::bf16)) {}

  /// Rows [from, to) of the operands as the batch says.
  void run(const ops::Batch& batch, int64_t from, int64_t to) {
    const ops::DeltaMixerWeights w{
        .conv = conv.view, .a_log = a_log.view, .dt_bias = dt_bias.view, .norm = norm.view, .gate = c.d.gate};
    Tensor out = y.view.rows(from, to);
    const auto mixer = clusters ? ops::delta_mixer : ops::delta_mixer_heads_cuda;
    mixer(gpu.cx, batch, mix.view.rows(from, to), z.view.rows(from, to), a.view.rows(from, to), b.view.rows(from, to),
          w, conv_state.view, S.view, out);
  }
  void run_all() {
    const test::DeviceBatch numbers(gpu, c.begin, c.slot, c.position);
    run({static_cast<int64_t>(c.slot.size()), numbers.begin(), numbers.slot(), numbers.position(), c.longest(), 0}, 0,
        c.rows());
    EXPECT_TRUE(gpu.stream->wait().ok());
  }
  /// One sequence's rows [from, to) in a call of their own.
  void run_rows(const Sequence& s, int64_t first, int64_t from, int64_t to) {
    const test::DeviceBatch numbers(gpu, {0, static_cast<int32_t>(to - from)}, {static_cast<int32_t>(s.slot)},
                                    {static_cast<int32_t>(s.position + from)});
    run({1, numbers.begin(), numbers.slot(), numbers.position(), to - from, 0}, first + from, first + to);
    EXPECT_TRUE(gpu.stream->wait().ok());
  }

  test::CudaContext& gpu;
  const Case& c;
  bool clusters = true;  // false: as on a GPU that has none
  test::DeviceTensor mix, z, a, b, conv, a_log, dt_bias, norm, conv_state, S, y;
};

void expect_same(OnGpu& got, OnGpu& expected) {
  test::expect_same_bits(got.y.fetch().view, expected.y.fetch().view, "y");
  test::expect_same_bits(got.S.fetch().view, expected.S.fetch().view, "S");
  test::expect_same_bits(got.conv_state.fetch().view, expected.conv_state.fetch().view, "conv_state");
}

std::vector<double> slice(const TestTensor& x, int64_t begin, int64_t end) {
  const auto part = x.view.rows(begin, end).f32_span();
  return {part.begin(), part.end()};
}

/// Within the tolerance element by element and, if asked for, as a whole.
void expect_close(std::span<const float> actual, const std::vector<double>& expected, const test::Tolerance& tolerance,
                  std::optional<double> l2, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double squares = 0, errors = 0, worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    squares += expected[i] * expected[i];
    errors += (actual[i] - expected[i]) * (actual[i] - expected[i]);
  }
  const double rms = std::sqrt(squares / static_cast<double>(std::max<size_t>(1, expected.size())));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]), scale = std::abs(expected[i]) + rms;
    if (!(error <= tolerance.relative * scale)) {
      FAIL() << what << "[" << i << "]: expected " << expected[i] << ", got " << actual[i] << ", beyond "
             << tolerance.name;
    }
    if (scale > 0) worst = std::max(worst, error / scale);
  }
  const double relative = squares > 0 ? std::sqrt(errors / squares) : 0;
  EXPECT_LE(relative, l2.value_or(1)) << what;
  ::testing::Test::RecordProperty(what, std::to_string(worst) + " l2 " + std::to_string(relative));
}

void expect_oracle(const Case& c, const Result& r, const test::Tolerance& y_tolerance, const test::Tolerance& chunked,
                   std::optional<double> l2) {
  EXPECT_TRUE(r.y.guards_intact() && r.S.guards_intact() && r.conv_state.guards_intact());
  std::vector<bool> touched(static_cast<size_t>(c.S.view.dim(0)));
  for (size_t i = 0; i < c.sequences.size(); ++i) {
    const Sequence& s = c.sequences[i];
    if (s.slot < 0 || s.rows == 0) continue;
    SCOPED_TRACE("sequence " + std::to_string(i));
    touched[static_cast<size_t>(s.slot)] = true;
    const int64_t from = c.begin[i], to = c.begin[i + 1];
    const oracle::DeltaMixerInputs in{slice(c.mix, from, to),
                                      slice(c.z, from, to),
                                      slice(c.a, from, to),
                                      slice(c.b, from, to),
                                      c.conv.doubles(),
                                      c.a_log.doubles(),
                                      c.dt_bias.doubles(),
                                      c.norm.doubles(),
                                      1e-6,
                                      1e-6,
                                      c.d.gate == ops::Gate::silu};
    std::vector<double> conv = slice(c.conv_state, s.slot, s.slot + 1), S = slice(c.S, s.slot, s.slot + 1);
    if (s.position == 0) {
      std::ranges::fill(conv, 0.0);
      std::ranges::fill(S, 0.0);
    }
    const oracle::DeltaShape shape{static_cast<size_t>(s.rows), static_cast<size_t>(c.d.key_heads),
                                   static_cast<size_t>(c.d.heads), static_cast<size_t>(c.d.key_size),
                                   static_cast<size_t>(c.d.value_size)};
    const std::vector<double> y = oracle::delta_mixer(shape, in, conv, S);
    const bool chunks = l2 && s.rows > 16 && c.d.key_size == 128 && c.d.value_size == 128;
    expect_close(r.y.view.rows(from, to).f32_span(), y, chunks ? chunked : y_tolerance, chunks ? l2 : std::nullopt,
                 "y");
    expect_close(r.S.view.rows(s.slot, s.slot + 1).f32_span(), S, chunks ? chunked : test::kGatedDelta,
                 chunks ? l2 : std::nullopt, "S");
    expect_close(r.conv_state.view.rows(s.slot, s.slot + 1).f32_span(), conv, test::kExact, std::nullopt, "conv_state");
  }
  for (int64_t slot = 0; slot < c.S.view.dim(0); ++slot) {
    if (touched[static_cast<size_t>(slot)]) continue;
    test::expect_same_bits(r.S.view.rows(slot, slot + 1), c.S.view.rows(slot, slot + 1), "S of an idle slot");
    test::expect_same_bits(r.conv_state.view.rows(slot, slot + 1), c.conv_state.view.rows(slot, slot + 1),
                           "conv_state of an idle slot");
  }
}

const std::vector<Sequence> kMixed = {{3, 4, 9}, {1, -1, 0}, {16, 0, 0}, {0, 2, 5}, {1, 5, 77}, {40, 1, 0}, {2, -1, 3}};

TEST(DeltaMixer, MeetsTheOracle) {
  test::TestContext context(2);
  Rng rng(311);
  for (const Dims& d : kDims) {
    SCOPED_TRACE(d.name);
    const Case c(rng, d, kMixed, 7);
    expect_oracle(c, run_cpu(context.cx, c), test::kGatedDelta, test::kGatedDelta, std::nullopt);
  }
}

TEST(DeltaMixer, IsItsOpsBitForBit) {
  test::TestContext context(2);
  Context& cx = context.cx;
  Rng rng(312);
  for (const Dims& d : kDims) {
    SCOPED_TRACE(d.name);
    const Case c(rng, d, kMixed, 7);
    const Result r = run_cpu(cx, c);
    for (size_t i = 0; i < c.sequences.size(); ++i) {
      const auto [n, slot, position] = c.sequences[i];
      if (slot < 0 || n == 0) continue;
      const auto rows = [&](const TestTensor& x) { return x.view.rows(c.begin[i], c.begin[i + 1]); };
      TestTensor conv({3, d.channels()}), S({d.heads, d.key_size, d.value_size}), qkv({n, d.channels()});
      std::ranges::copy(c.conv_state.view.rows(slot, slot + 1).f32_span(), conv.view.f32());
      std::ranges::copy(c.S.view.rows(slot, slot + 1).f32_span(), S.view.f32());
      if (position == 0) {
        std::ranges::fill(conv.values(), 0.0f);
        std::ranges::fill(S.values(), 0.0f);
      }
      ops::conv_silu(cx, rows(c.mix), c.conv.view, conv.view, qkv.view);
      TestTensor q({n, d.key_heads, d.key_size}), k({n, d.key_heads, d.key_size}), v({n, d.heads, d.value_size});
      TestTensor g({n, d.heads}), beta({n, d.heads}), y({n, d.heads, d.value_size});
      std::array<Tensor, 3> parts = {q.view, k.view, v.view};
      ops::split_columns(cx, qkv.view, parts);
      ops::l2_norm(cx, q.view, 1e-6f, q.view);
      ops::l2_norm(cx, k.view, 1e-6f, k.view);
      ops::delta_gates(cx, rows(c.a), rows(c.b), c.a_log.view, c.dt_bias.view, g.view, beta.view);
      ops::gated_delta(cx, q.view, k.view, v.view, g.view, beta.view, 1 / std::sqrt(static_cast<float>(d.key_size)),
                       S.view, y.view);
      ops::gated_rms_norm(cx, y.view, rows(c.z), c.norm.view, 1e-6f, d.gate, y.view);
      test::expect_same_bits(y.view, rows(r.y), "y");
      test::expect_same_bits(S.view.reshape({1, d.heads, d.key_size, d.value_size}), r.S.view.rows(slot, slot + 1),
                             "S");
      test::expect_same_bits(conv.view.reshape({1, 3, d.channels()}), r.conv_state.view.rows(slot, slot + 1), "conv");
    }
  }
}

Result run_gpu(test::CudaContext& gpu, const Case& c, bool clusters = true) {
  OnGpu on(gpu, c);
  on.clusters = clusters;
  on.run_all();
  return {test::to_f32(on.y.fetch()), on.conv_state.fetch().copy(), on.S.fetch().copy()};
}

TEST(DeltaMixerCuda, MeetsTheOracle) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(313);
  for (const Dims& d : kDims) {
    for (const int64_t t : {1, 2, 5, 16, 17, 64, 65, 200}) {
      for (const int64_t position : {0, 30}) {
        SCOPED_TRACE(d.name + (" T=" + std::to_string(t)));
        const Case c(rng, d, {{t, 1, position}}, 2);
        expect_oracle(c, run_gpu(gpu, c), test::kBf16Rounding, test::kGatedDeltaBf16, test::kGatedDeltaBf16L2);
      }
    }
  }
}

TEST(DeltaMixerCuda, ABatchMeetsTheOracle) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(314);
  // The second has more chunks than one window.
  const std::vector<Sequence> windows = {{70, 3, 0}, {1, 4, 8}, {2100, 6, 5}, {17, -1, 0}, {129, 0, 64}};
  for (const Dims& d : kDims) {
    SCOPED_TRACE(d.name);
    for (const auto& sequences : {kMixed, windows}) {
      const Case c(rng, d, sequences, 7);
      expect_oracle(c, run_gpu(gpu, c), test::kBf16Rounding, test::kGatedDeltaBf16, test::kGatedDeltaBf16L2);
    }
  }
}

/// The strongest decay and none, full strength and none.
TEST(DeltaMixerCuda, ExtremesMeetTheOracle) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(315);
  for (const float gate : {-40.0f, 40.0f}) {
    Case c(rng, kDims[2], {{200, 0, 3}, {9, 1, 3}}, 2);
    for (size_t i = 0; i < c.a.values().size(); i += 3) c.a.values()[i] = gate;
    for (size_t i = 0; i < c.b.values().size(); i += 2) c.b.values()[i] = gate;
    std::ranges::fill(c.dt_bias.values(), 0.0f);
    std::ranges::fill(c.a_log.values(), 0.3f);
    expect_oracle(c, run_gpu(gpu, c), test::kBf16Rounding, test::kGatedDeltaBf16, test::kGatedDeltaBf16L2);
  }
}

TEST(DeltaMixerCuda, RowsDoNotDependOnTheirNeighbours) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(316);
  for (const Dims& d : kDims) {
    SCOPED_TRACE(d.name);
    const Case c(rng, d, {{3, 4, 9}, {16, 0, 0}, {150, 2, 7}, {1, 5, 77}, {64, 1, 0}}, 7);
    OnGpu together(gpu, c), alone(gpu, c);
    together.run_all();
    for (size_t i = 0; i < c.sequences.size(); ++i) {
      alone.run_rows(c.sequences[i], c.begin[i], 0, c.sequences[i].rows);
    }
    expect_same(alone, together);
  }
}

/// So many heads that they get a kernel of their own; alone a sequence goes through the other one.
TEST(DeltaMixerCuda, ARowEachOfManySequences) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(320);
  for (const Dims& d : {Dims{"a value head", 2, 2, 128, 128}, kDims[3], kDims[4]}) {
    SCOPED_TRACE(d.name);
    std::vector<Sequence> list;
    for (int64_t i = 0; i < 120; ++i) list.push_back({i % 7 == 3 ? 0 : 1, i % 5 == 2 ? -1 : 119 - i, i % 3 * 9});
    const Case c(rng, d, list, 120);
    expect_oracle(c, run_gpu(gpu, c), test::kBf16Rounding, test::kGatedDeltaBf16, test::kGatedDeltaBf16L2);
    OnGpu together(gpu, c), alone(gpu, c);
    together.run_all();
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].slot >= 0 && list[i].rows > 0) alone.run_rows(list[i], c.begin[i], 0, 1);
    }
    expect_same(alone, together);
  }
}

TEST(DeltaMixerCuda, GpusWithoutClustersGetTheSame) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(321);
  for (const Dims& d : kDims) {
    SCOPED_TRACE(d.name);
    const Case c(rng, d, {{3, 4, 9}, {1, -1, 0}, {16, 0, 0}, {0, 2, 5}, {1, 5, 77}, {2, 1, 0}}, 7);
    OnGpu clusters(gpu, c), heads(gpu, c);
    heads.clusters = false;
    clusters.run_all();
    heads.run_all();
    expect_same(heads, clusters);
    // Long ones, which go in chunks elsewhere.
    const Case long_one(rng, d, {{40, 1, 0}, {130, 3, 4}}, 5);
    expect_oracle(long_one, run_gpu(gpu, long_one, false), test::kBf16Rounding, test::kGatedDeltaBf16, std::nullopt);
  }
}

TEST(DeltaMixerCuda, OneCallIsManyCallsOfOne) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(317);
  for (const Dims& d : kDims) {
    for (const int64_t t : {2, 5, 16}) {
      for (const int64_t piece : {1, 3}) {
        SCOPED_TRACE(d.name + (" T=" + std::to_string(t)));
        const Case c(rng, d, {{t, 0, 0}}, 1);
        OnGpu once(gpu, c), cut(gpu, c);
        once.run_all();
        for (int64_t row = 0; row < t; row += piece) cut.run_rows(c.sequences[0], 0, row, std::min(t, row + piece));
        expect_same(cut, once);
      }
    }
  }
}

/// At multiples of 64 rows, and replayed from a graph.
TEST(DeltaMixerCuda, CutsAtChunksAndGraphsChangeNothing) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(318);
  const Case c(rng, kDims[3], {{200, 0, 0}}, 1);
  OnGpu once(gpu, c), cut(gpu, c), recorded(gpu, c);
  once.run_all();
  cut.run_rows(c.sequences[0], 0, 0, 128);
  cut.run_rows(c.sequences[0], 0, 128, 200);
  const test::DeviceBatch numbers(gpu, c.begin, c.slot, c.position);
  auto graph = gpu.stream->capture([&] {
    recorded.run({1, numbers.begin(), numbers.slot(), numbers.position(), c.longest(), 0}, 0, c.rows());
  });
  ASSERT_TRUE(graph.ok()) << graph.status().text();
  for (int i = 0; i < 2; ++i) gpu.stream->replay(**graph);  // position 0: the second starts over
  for (OnGpu* other : {&cut, &recorded}) {
    expect_same(*other, once);
  }
}

TEST(DeltaMixerCuda, StaysWithinItsScratch) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(319);
  const Dims& d = kDims[3];
  const Case c(rng, d, {{300, 0, 0}, {17, 1, 0}, {4, 2, 3}}, 3);
  const size_t before = gpu.cx.arena.peak_bytes();
  run_gpu(gpu, c);
  EXPECT_GT(gpu.cx.arena.peak_bytes(), before);
  EXPECT_LE(gpu.cx.arena.peak_bytes(),
            ops::delta_mixer_scratch_bytes(c.rows(), 3, c.longest(), d.key_heads, d.heads, d.key_size, d.value_size));
}

}  // namespace
}  // namespace nibble
