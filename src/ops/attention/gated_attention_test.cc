#include "ops/attention/gated_attention.h"

#include <numeric>

#include "ops/attention/attention.h"
#include "ops/norm/rms_norm.h"
#include "ops/rope/rope.h"
#include "ops/shape/split.h"
#include "tests/support/cuda_test.h"
#include "tests/support/oracle/activation.h"
#include "tests/support/oracle/attention.h"

namespace nibble {
namespace {

using test::CudaContext;
using test::DeviceTensor;
using test::TestTensor;

struct Heads {
  int64_t heads, kv_heads, size, rotary_dim;
  bool gate = true;
};

struct Rows {
  int32_t count, past, slot;  // slot -1: padding
};

constexpr double kTheta = 1e7;
constexpr int64_t kSlots = 7;

/// Rows of a few sequences, and caches with what came before them; everywhere else the caches are NaN.
struct Inputs {
  Inputs(Rng& rng, const Heads& h, std::vector<Rows> rows, DType cache = DType::bf16)
      : h(h), sequences(std::move(rows)) {
    for (const Rows& s : sequences) {
      begin.push_back(begin.back() + s.count);
      slot.push_back(s.slot);
      position.push_back(s.past);
      longest = std::max<int64_t>(longest, s.count);
      reach = std::max<int64_t>(reach, s.past + s.count);
    }
    const int64_t total = begin.back(), capacity = reach + 150;
    q_gate = rounded(rng, {total, h.heads, (h.gate ? 2 : 1) * h.size}, 3);
    k = rounded(rng, {total, h.kv_heads, h.size}, 3);
    v = rounded(rng, {total, h.kv_heads, h.size}, 1);
    q_norm = TestTensor::normal(rng, {h.size}, 0.3f);
    k_norm = TestTensor::normal(rng, {h.size}, 0.3f);
    keys = TestTensor({kSlots, capacity, h.kv_heads, h.size}, cache);
    values = TestTensor({kSlots, capacity, h.kv_heads, h.size}, cache);
    for (const Rows& s : sequences) {
      if (s.slot < 0) continue;
      fill(rng, keys, s);
      fill(rng, values, s);
    }
  }

  static TestTensor rounded(Rng& rng, const Shape& shape, float scale) {
    TestTensor x = TestTensor::normal(rng, shape, scale);
    for (float& value : x.values()) value = round_to_bf16(value);
    return x;
  }
  static void fill(Rng& rng, const TestTensor& cache, const Rows& s) {
    Tensor slot = slot_of(cache, s.slot);
    const int64_t elements = s.past * slot.dim(1) * slot.dim(2);
    for (int64_t i = 0; i < elements; ++i) {
      const float x = rng.normal();
      if (slot.dtype() == DType::f32) {
        slot.f32()[i] = x;
      } else {
        slot.bf16()[i] = f32_to_bf16(x);
      }
    }
  }
  static Tensor slot_of(const TestTensor& cache, int64_t slot) {
    const Tensor& view = cache.view;
    return view.rows(slot, slot + 1).reshape({view.dim(1), view.dim(2), view.dim(3)});
  }
  Shape y_shape() const { return {begin.back(), h.heads, h.size}; }
  ops::GatedAttentionWeights weights(const Tensor& q, const Tensor& key) const {
    return {q, key, 1e-6f, h.rotary_dim, kTheta};
  }

  Heads h;
  std::vector<Rows> sequences;
  std::vector<int32_t> begin{0}, slot, position;
  int64_t longest = 0, reach = 0;
  TestTensor q_gate, k, v, q_norm, k_norm, keys, values;
};

TestTensor ints(const std::vector<int32_t>& values) {
  TestTensor tensor({static_cast<int64_t>(values.size())}, DType::i32);
  std::ranges::copy(values, tensor.view.i32());
  return tensor;
}

// Without f32 and bf16 caches, gates or padding in the way: the ops one by one, each sequence with a cache of its own.
TEST(GatedAttention, IsTheOpsItNames) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(81);
    for (const DType cache : {DType::f32, DType::bf16}) {
      for (const bool gate : {true, false}) {
        Inputs in(rng, {4, 2, 32, 8, gate}, {{3, 60, 4}, {2, 5, -1}, {17, 0, 1}, {0, 9, 2}, {1, 130, 0}}, cache);
        const TestTensor keys = in.keys.copy(), values = in.values.copy();
        const TestTensor begin = ints(in.begin), slot = ints(in.slot), position = ints(in.position);
        TestTensor y(in.y_shape());
        {
          const test::Unchanged unchanged{&in.q_gate, &in.k, &in.v, &in.q_norm, &in.k_norm, &begin, &slot, &position};
          const ops::Batch batch{
              static_cast<int64_t>(in.sequences.size()), begin.view, slot.view, position.view, in.longest, in.reach};
          ops::gated_attention(context.cx, batch, in.q_gate.view, in.k.view, in.v.view,
                               in.weights(in.q_norm.view, in.k_norm.view), in.keys.view, in.values.view, y.view);
        }
        EXPECT_TRUE(y.guards_intact() && in.keys.guards_intact() && in.values.guards_intact());

        Context& cx = context.cx;
        TestTensor q(in.y_shape()), sigmoid(in.y_shape()), k(in.k.view.shape()), o(in.y_shape());
        q.view = gate ? q.view : in.q_gate.view;
        if (gate) ops::split_heads(cx, in.q_gate.view, q.view, sigmoid.view);
        ops::rms_norm(cx, q.view, in.q_norm.view, 1e-6f, ops::Gain::one_plus, q.view);
        ops::rms_norm(cx, in.k.view, in.k_norm.view, 1e-6f, ops::Gain::one_plus, k.view);
        for (size_t s = 0; s < in.sequences.size(); ++s) {
          const Rows& rows = in.sequences[s];
          if (rows.slot < 0) continue;
          const auto of = [&](const Tensor& x) { return x.rows(in.begin[s], in.begin[s + 1]); };
          Tensor turned_q = of(q.view), turned_k = of(k.view), out = of(o.view);
          Tensor own_keys = Inputs::slot_of(keys, rows.slot), own_values = Inputs::slot_of(values, rows.slot);
          ops::rope(cx, turned_q, rows.past, 8, kTheta, turned_q);
          ops::rope(cx, turned_k, rows.past, 8, kTheta, turned_k);
          ops::append_kv(cx, turned_k, rows.past, own_keys);
          ops::append_kv(cx, of(in.v.view), rows.past, own_values);
          ops::attention(cx, turned_q, own_keys, own_values, rows.past, 1 / std::sqrt(32.0f), out);
          if (gate) ops::sigmoid_gate(cx, out, of(sigmoid.view), out);
          test::expect_same_bits(of(y.view), out, "y");
        }
        test::expect_same_bits(in.keys.view, keys.view, "keys");
        test::expect_same_bits(in.values.view, values.view, "values");
      }
    }
  });
}

/// The inputs on a GPU; every call continues the caches there.
class OnGpu {
 public:
  OnGpu(CudaContext& gpu, const Inputs& in)
      : gpu_(gpu),
        in_(in),
        q_gate_(gpu, test::to_bf16(in.q_gate)),
        k_(gpu, test::to_bf16(in.k)),
        v_(gpu, test::to_bf16(in.v)),
        q_norm_(gpu, in.q_norm),
        k_norm_(gpu, in.k_norm),
        keys_(gpu, in.keys),
        values_(gpu, in.values),
        y_(gpu, TestTensor(in.y_shape(), DType::bf16)) {}

  /// Of the tensors' rows [first, end), as the batch counts them.
  void call(const test::DeviceBatch& numbers, int64_t sequences, int64_t longest, int64_t reach, int64_t first,
            int64_t end) {
    const ops::Batch batch{sequences, numbers.begin(), numbers.slot(), numbers.position(), longest, reach};
    const auto rows = [&](const DeviceTensor& x) { return x.view.rows(first, end); };
    Tensor y = rows(y_);
    ops::gated_attention(gpu_.cx, batch, rows(q_gate_), rows(k_), rows(v_), in_.weights(q_norm_.view, k_norm_.view),
                         keys_.view, values_.view, y);
  }
  /// All sequences at once.
  void call(int64_t more_reach = 0) {
    const test::DeviceBatch numbers(gpu_, in_.begin, in_.slot, in_.position);
    call(numbers, static_cast<int64_t>(in_.sequences.size()), in_.longest, in_.reach + more_reach, 0, in_.begin.back());
    ASSERT_TRUE(gpu_.stream->wait().ok());
  }
  /// Rows [from, to) of one sequence.
  void call_alone(size_t s, int32_t from, int32_t to) {
    const test::DeviceBatch numbers(gpu_, {0, to - from}, {in_.slot[s]}, {in_.position[s] + from});
    call(numbers, 1, to - from, in_.position[s] + to, in_.begin[s] + from, in_.begin[s] + to);
    ASSERT_TRUE(gpu_.stream->wait().ok());
  }

  const TestTensor& y() { return y_.fetch(); }
  const TestTensor& keys() { return keys_.fetch(); }
  const TestTensor& values() { return values_.fetch(); }

 private:
  CudaContext& gpu_;
  const Inputs& in_;
  DeviceTensor q_gate_, k_, v_, q_norm_, k_norm_, keys_, values_, y_;
};

std::vector<double> doubles_of(const Tensor& x) {
  std::vector<double> values;
  for (int64_t i = 0; i < x.elements(); ++i) {
    values.push_back(x.dtype() == DType::bf16 ? bf16_to_f32(x.bf16()[i]) : x.f32()[i]);
  }
  return values;
}

struct Expected {
  std::vector<double> y, new_keys;
};

std::vector<double> to_bf16(std::vector<double> x) {
  for (double& value : x) value = round_to_bf16(static_cast<float>(value));
  return x;
}

Expected oracle_of(const Inputs& in, size_t s) {
  const Heads& h = in.h;
  const auto size = static_cast<size_t>(h.size), past = static_cast<size_t>(in.position[s]);
  const auto of = [&](const TestTensor& x) { return doubles_of(x.view.rows(in.begin[s], in.begin[s + 1])); };
  const auto turned = [&](const std::vector<double>& x, const TestTensor& norm, int64_t heads) {
    return oracle::rope(oracle::rms_norm(x, norm.doubles(), 1e-6, true), static_cast<size_t>(heads), size, past,
                        static_cast<size_t>(h.rotary_dim), kTheta);
  };
  std::vector<double> q = of(in.q_gate), gate;
  if (h.gate) {
    std::vector<double> halves[2];
    for (size_t i = 0; i < q.size(); ++i) halves[i / size % 2].push_back(q[i]);
    q = halves[0];
    gate = halves[1];
  }
  Expected expected;
  expected.new_keys = turned(of(in.k), in.k_norm, h.kv_heads);
  const auto with_past = [&](const TestTensor& cache, const std::vector<double>& added) {
    std::vector<double> all = doubles_of(Inputs::slot_of(cache, in.slot[s]).rows(0, in.position[s]));
    all.insert(all.end(), added.begin(), added.end());
    return all;
  };
  const oracle::AttentionShape shape{static_cast<size_t>(in.sequences[s].count), static_cast<size_t>(h.heads),
                                     static_cast<size_t>(h.kv_heads), size, past};
  expected.y =
      oracle::attention(shape, to_bf16(turned(q, in.q_norm, h.heads)), with_past(in.keys, to_bf16(expected.new_keys)),
                        with_past(in.values, of(in.v)), 1 / std::sqrt(static_cast<double>(size)));
  if (h.gate) expected.y = oracle::sigmoid_gate(gate, expected.y);
  return expected;
}

TestTensor f32_rows(const Tensor& x) {
  TestTensor copy(x.shape());
  std::ranges::transform(doubles_of(x), copy.values().begin(), [](double value) { return static_cast<float>(value); });
  return copy;
}

/// y, the new positions of the caches, and that nothing else of them was written.
void expect_oracle(CudaContext& gpu, const Inputs& in) {
  OnGpu on_gpu(gpu, in);
  on_gpu.call();
  const TestTensor &y = on_gpu.y(), &keys = on_gpu.keys(), &values = on_gpu.values();
  const TestTensor others_keys = keys.copy(), others_values = values.copy();
  for (size_t s = 0; s < in.sequences.size(); ++s) {
    const Rows& rows = in.sequences[s];
    if (rows.slot < 0 || rows.count == 0) continue;
    SCOPED_TRACE(fmt::format("rows {}, past {}, D {}", rows.count, rows.past, in.h.size));
    const Expected expected = oracle_of(in, s);
    test::expect_close(f32_rows(y.view.rows(in.begin[s], in.begin[s + 1])), expected.y, test::kGatedAttentionBf16, "y");
    const auto added = [&](const TestTensor& cache) {
      return Inputs::slot_of(cache, rows.slot).rows(rows.past, rows.past + rows.count);
    };
    test::expect_close(f32_rows(added(keys)), expected.new_keys, test::kBf16Rounding, "k");
    test::expect_close(f32_rows(added(values)), doubles_of(in.v.view.rows(in.begin[s], in.begin[s + 1])), test::kExact,
                       "v");
    std::memset(added(others_keys).raw(), 0xFF, added(others_keys).bytes());
    std::memset(added(others_values).raw(), 0xFF, added(others_values).bytes());
  }
  test::expect_same_bits(others_keys.view, in.keys.view, "other keys");
  test::expect_same_bits(others_values.view, in.values.view, "other values");
}

TEST(GatedAttentionCuda, MeetsTheOracle) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(82);
  for (const Heads& h : {Heads{4, 2, 32, 8}, Heads{8, 2, 256, 64}}) {
    for (const int32_t rows : {1, 2, 5, 16, 17, 64, 65, 200}) {
      for (const int32_t past : {0, 1, 63, 64, 255, 256, 700}) expect_oracle(gpu, Inputs(rng, h, {{rows, past, 3}}));
    }
  }
}

TEST(GatedAttentionCuda, MeetsTheOracleInOtherShapes) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(83);
  const std::vector<Rows> several = {{1, 700, 6}, {17, 63, 2}, {3, 0, -1}, {130, 0, 0}, {0, 5, 1}, {5, 255, 5}};
  const std::vector<Rows> few = {{4, 127, 6}, {1, 0, -1}, {4, 128, 0}, {1, 300, 1}, {16, 125, 5}};
  for (const Heads& h : {Heads{16, 4, 256, 64}, Heads{6, 1, 256, 64, false}, Heads{2, 2, 256, 256}, Heads{2, 1, 16, 0},
                         Heads{3, 3, 64, 10, false}, Heads{2, 1, 240, 30}}) {
    expect_oracle(gpu, Inputs(rng, h, several));
    expect_oracle(gpu, Inputs(rng, h, few));
  }
}

// The keys of a few rows are split once there are 1024 of them.
TEST(GatedAttentionCuda, MeetsTheOracleWhereKeysAreSplit) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(87);
  expect_oracle(gpu, Inputs(rng, {4, 1, 256, 64}, {{70, 3000, 2}}));
  expect_oracle(gpu, Inputs(rng, {6, 1, 256, 64, false}, {{40, 2100, 2}, {1, 50, 0}, {100, 0, 3}, {19, 1, 1}}));
}

// Whoever else is in the batch, however many rows come at once, however far the plan reaches.
TEST(GatedAttentionCuda, ShortRowsDependOnTheirPositionAlone) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(84);
  for (const Heads& h : {Heads{8, 2, 256, 64}, Heads{24, 4, 256, 64}, Heads{4, 2, 32, 8}}) {
    for (const bool with_long : {false, true}) {
      std::vector<Rows> rows = {{16, 250, 2}, {2, 7, -1}, {1, 700, 6}, {5, 0, 0}, {4, 126, 3}};
      if (with_long) rows.push_back({40, 30, 1});
      const Inputs in(rng, h, rows);
      OnGpu together(gpu, in), far(gpu, in);
      together.call();
      far.call(150);
      test::expect_same_bits(far.y().view.rows(0, 16), together.y().view.rows(0, 16), "larger reach");
      for (size_t s = 0; s < 5; ++s) {
        if (in.slot[s] < 0) continue;
        const auto of = [&](const TestTensor& x) { return x.view.rows(in.begin[s], in.begin[s + 1]); };
        OnGpu alone(gpu, in), one_by_one(gpu, in);
        alone.call_alone(s, 0, rows[s].count);
        for (int32_t t = 0; t < rows[s].count; ++t) one_by_one.call_alone(s, t, t + 1);
        test::expect_same_bits(of(alone.y()), of(together.y()), "alone");
        test::expect_same_bits(of(one_by_one.y()), of(together.y()), "one by one");
        test::expect_same_bits(of(far.y()), of(together.y()), "larger reach");
        test::expect_same_bits(Inputs::slot_of(one_by_one.keys(), in.slot[s]),
                               Inputs::slot_of(together.keys(), in.slot[s]), "keys");
      }
    }
  }
}

// More pieces of keys than a GPU has room for blocks: each goes on to others.
TEST(GatedAttentionCuda, BlocksOfSeveralPiecesKeepTheBits) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(88);
  for (const int32_t count : {1, 4}) {
    const Inputs in(rng, {64, 16, 256, 64},
                    {{count, 700, 6}, {count, 650, 2}, {count, 600, 0}, {count, 640, 5}, {count, 520, 1}});
    expect_oracle(gpu, in);
    OnGpu together(gpu, in);
    together.call();
    for (size_t s = 0; s < in.sequences.size(); ++s) {
      OnGpu alone(gpu, in);
      alone.call_alone(s, 0, count);
      const auto of = [&](const TestTensor& x) { return x.view.rows(in.begin[s], in.begin[s + 1]); };
      test::expect_same_bits(of(alone.y()), of(together.y()), "alone");
    }
  }
}

TEST(GatedAttentionCuda, RecordedStepsFindNewPositions) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(85);
  const Inputs in(rng, {8, 2, 256, 64}, {{1, 126, 1}, {1, 500, 4}});
  OnGpu recorded(gpu, in), direct(gpu, in);
  const test::DeviceBatch now(gpu, in.begin, in.slot, in.position);
  auto graph = gpu.stream->capture([&] { recorded.call(now, 2, 1, in.reach + 100, 0, 2); });
  ASSERT_TRUE(graph.ok()) << graph.status().text();
  EXPECT_EQ((*graph)->nodes(), 3);
  for (int32_t step = 0; step < 5; ++step) {
    const std::vector<int32_t> position = {in.position[0] + step, in.position[1] + step};
    const test::DeviceBatch next(gpu, in.begin, in.slot, position);
    gpu.stream->copy(next.position(), now.position());
    gpu.stream->replay(**graph);
    direct.call(next, 2, 1, in.reach + step, 0, 2);
    test::expect_same_bits(recorded.y().view, direct.y().view, "y");
  }
}

TEST(GatedAttentionCuda, TakesTheScratchItNames) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  Rng rng(86);
  for (const std::vector<Rows>& rows :
       {std::vector<Rows>{{1, 300, 0}}, {{16, 300, 0}, {3, 9, 1}}, {{100, 20, 0}}, {{2, 300, 0}, {70, 20, 1}}}) {
    const Inputs in(rng, {8, 2, 256, 64}, rows);
    OnGpu on_gpu(gpu, in);
    ASSERT_TRUE(gpu.cx.arena.reserve(size_t{64} << 20).ok());
    on_gpu.call();
    ops::Batch bounds;
    bounds.sequences = static_cast<int64_t>(rows.size());
    bounds.longest = in.longest;
    bounds.reach = in.reach;
    EXPECT_EQ(gpu.cx.arena.peak_bytes(), ops::gated_attention_scratch_bytes(in.begin.back(), bounds, 8, 2, 256));
  }
}

}  // namespace
}  // namespace nibble
