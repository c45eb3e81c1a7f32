// What must hold for any weights: how a prompt is cut, and what stood in the state before, changes nothing.
#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"
#include "model/forward.h"
#include "tests/support/models.h"

namespace nibble::test {
namespace {

struct Trial {
  OwnedTensor hidden, logits;
  model::State state;
};

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

class ForwardProperty : public testing::TestWithParam<std::tuple<const char*, bool, Numeric>> {
 protected:
  ForwardProperty() : model_(load(kSource / std::get<0>(GetParam()))) {
    cx_.numeric = std::get<2>(GetParam());
    if (std::get<1>(GetParam())) quantize_in_place(cx_, model_.weights, Scales::tied);
    Rng rng(7);
    for (int32_t& id : ids_) id = static_cast<int32_t>(rng.below(static_cast<uint32_t>(c().vocab)));
  }
  const model::Config& c() const { return model_.weights.config; }
  DType kv() const { return cx_.numeric == Numeric::exact ? DType::f32 : DType::bf16; }

  // Feeds ids_[0, total) in pieces that end at the given cuts.
  Trial run(int64_t total, std::vector<int64_t> cuts) {
    Trial r{OwnedTensor(DType::f32, {total, c().hidden}), OwnedTensor(DType::f32, {total, c().vocab}),
            model::State(c(), total, kv())};
    cuts.push_back(total);
    for (int64_t begin = 0; int64_t end : cuts) {
      Tensor piece = r.hidden.view.rows(begin, end);
      const std::span<const int32_t> ids(ids_.data() + begin, static_cast<size_t>(end - begin));
      EXPECT_TRUE(model::forward(cx_, model_.weights, ids, r.state, piece).ok());
      begin = end;
    }
    model::head(cx_, model_.weights, r.hidden.view, r.logits.view);
    return r;
  }
  void expect_same_state(Trial& a, Trial& b) {
    ASSERT_EQ(a.state.position(), b.state.position());
    for (int i = 0; i < static_cast<int>(c().layers); ++i) {
      model::LayerState &x = a.state.layer(i), &y = b.state.layer(i);
      EXPECT_TRUE(x.S.empty() || (same_bits(x.S, y.S) && same_bits(x.conv, y.conv))) << "layer " << i;
      EXPECT_TRUE(x.keys.empty() || (same_bits(x.keys, y.keys) && same_bits(x.values, y.values))) << "layer " << i;
    }
  }
  // f32 noise; BF16 rounding of activations turns a last-bit difference into one of 2^-9.
  double tolerance() const { return cx_.numeric == Numeric::exact ? 1e-4 : 0.25; }

  ThreadPool pool_{2};
  Context cx_{pool_};
  checkpoint::LoadedModel model_;
  std::array<int32_t, 300> ids_;
};

TEST_P(ForwardProperty, UpToSixteenTokensAtOnceEqualOneByOneBitForBit) {
  for (int64_t T : {1, 2, 3, 7, 16}) {
    std::vector<int64_t> every;
    for (int64_t t = 1; t < T; ++t) every.push_back(t);
    Trial at_once = run(T, {}), one_by_one = run(T, every);
    EXPECT_TRUE(same_bits(at_once.logits.view, one_by_one.logits.view)) << T;
    expect_same_state(at_once, one_by_one);
  }
}

TEST_P(ForwardProperty, LongerPromptsEqualOneByOneWithinRounding) {
  for (int64_t T : {17, 65, 130}) {
    std::vector<int64_t> every;
    for (int64_t t = 1; t < T; ++t) every.push_back(t);
    Trial at_once = run(T, {}), one_by_one = run(T, every);
    EXPECT_LE(max_abs_difference(at_once.logits.view.f32_span(), one_by_one.logits.view.f32_span()), tolerance()) << T;
  }
}

TEST_P(ForwardProperty, CutsAtMultiplesOf64ChangeNoBit) {
  for (int64_t T : {130, 145, 300}) {
    Trial whole = run(T, {}), cut = run(T, {64, 128}), other = run(T, {128});
    EXPECT_TRUE(same_bits(whole.logits.view, cut.logits.view)) << T;
    expect_same_state(whole, cut);
    expect_same_state(whole, other);
  }
}

TEST_P(ForwardProperty, CutsElsewhereStayWithinRounding) {
  Trial whole = run(200, {}), cut = run(200, {1, 30, 101, 117});
  EXPECT_LE(max_abs_difference(whole.logits.view.f32_span(), cut.logits.view.f32_span()), tolerance());
}

TEST_P(ForwardProperty, SnapshotWanderRestoreIsAsIfNothingHappened) {
  Trial reference = run(120, {70});
  Trial r{OwnedTensor(DType::f32, {120, c().hidden}), OwnedTensor(DType::f32, {120, c().vocab}),
          model::State(c(), 120, kv())};
  Tensor first = r.hidden.view.rows(0, 70), rest = r.hidden.view.rows(70, 120);
  const std::span<const int32_t> ids(ids_);
  ASSERT_TRUE(model::forward(cx_, model_.weights, ids.subspan(0, 70), r.state, first).ok());
  const model::Snapshot snapshot = r.state.snapshot();
  ASSERT_TRUE(model::forward(cx_, model_.weights, ids.subspan(200, 50), r.state, rest).ok());
  r.state.restore(snapshot);
  ASSERT_TRUE(model::forward(cx_, model_.weights, ids.subspan(70, 50), r.state, rest).ok());
  EXPECT_TRUE(same_bits(reference.hidden.view, r.hidden.view));
  expect_same_state(reference, r);
}

TEST_P(ForwardProperty, SequencesSideBySideAreAsIfAlone) {
  const std::span<const int32_t> ids(ids_);
  const std::array<int64_t, 5> cuts = {0, 90, 91, 107, 200};
  std::vector<model::State> states;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) states.emplace_back(c(), cuts[i + 1] - cuts[i], kv());
  std::vector<model::Segment> segments;
  for (size_t i = 0; i < states.size(); ++i) segments.push_back({&states[i], cuts[i], cuts[i + 1]});
  OwnedTensor batch(DType::f32, {200, c().hidden});
  ASSERT_TRUE(model::forward(cx_, model_.weights, ids.subspan(0, 200), segments, batch.view).ok());
  for (size_t i = 0; i < states.size(); ++i) {
    const int64_t T = cuts[i + 1] - cuts[i];
    model::State state(c(), T, kv());
    OwnedTensor alone(DType::f32, {T, c().hidden});
    const auto own = ids.subspan(static_cast<size_t>(cuts[i]), static_cast<size_t>(T));
    ASSERT_TRUE(model::forward(cx_, model_.weights, own, state, alone.view).ok());
    EXPECT_TRUE(same_bits(batch.view.rows(cuts[i], cuts[i + 1]), alone.view)) << "sequence " << i;
  }
}

TEST_P(ForwardProperty, ThreadsDoNotMatter) {
  Trial two = run(100, {});
  ThreadPool one(1);
  Context single(one, cx_.numeric);
  model::State state(c(), 100, kv());
  OwnedTensor hidden(DType::f32, {100, c().hidden});
  ASSERT_TRUE(
      model::forward(single, model_.weights, std::span<const int32_t>(ids_).subspan(0, 100), state, hidden.view).ok());
  EXPECT_TRUE(same_bits(two.hidden.view, hidden.view));
}

INSTANTIATE_TEST_SUITE_P(Models, ForwardProperty,
                         testing::Combine(testing::Values("models/tiny-voice", "tests/golden/micro",
                                                          "tests/golden/micro_tied"),
                                          testing::Bool(), testing::Values(Numeric::exact, Numeric::bf16_act)),
                         [](const auto& info) {
                           std::string name = std::get<0>(info.param);
                           name = name.substr(name.rfind('/') + 1) + (std::get<1>(info.param) ? "_nvfp4_" : "_bf16_") +
                                  nibble::name(std::get<2>(info.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Forward, CancelledBetweenBlocks) {
  const checkpoint::LoadedModel model = load(kTinyVoice);
  ThreadPool pool(1);
  Context cx(pool);
  cx.cancel.cancel();
  model::State state(model.weights.config, 4, DType::f32);
  OwnedTensor hidden(DType::f32, {1, model.weights.config.hidden});
  const int32_t id = 0;
  EXPECT_EQ(model::forward(cx, model.weights, {&id, 1}, state, hidden.view).code(), Code::cancelled);
}

TEST(Forward, AllocatesNothingAfterTheFirstStep) {
  const checkpoint::LoadedModel model = load(kTinyVoice);
  ThreadPool pool(1);
  Context cx(pool);
  model::State state(model.weights.config, 8, DType::f32);
  OwnedTensor hidden(DType::f32, {1, model.weights.config.hidden});
  const int32_t id = 0;
  ASSERT_TRUE(model::forward(cx, model.weights, {&id, 1}, state, hidden.view).ok());
  const size_t reserved = cx.arena.reserved_bytes();
  ASSERT_TRUE(model::forward(cx, model.weights, {&id, 1}, state, hidden.view).ok());
  EXPECT_EQ(cx.arena.reserved_bytes(), reserved);
}

}  // namespace
}  // namespace nibble::test
