#include "model/forward.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "ops/embed/embed.h"
#include "ops/norm/rms_norm.h"

namespace nibble::model {

namespace {

Tensor copy_of(Context& cx, const Tensor& h) {
  Tensor copy = cx.arena.f32(h.shape());
  std::memcpy(copy.raw(), h.raw(), h.bytes());
  return copy;
}

}  // namespace

Status forward(Context& cx, const Weights& weights, std::span<const int32_t> ids, std::span<const Segment> segments,
               Tensor& hidden, const Tap* tap, Tape* tape) {
  const Config& c = weights.config;
  const auto T = static_cast<int64_t>(ids.size());
  NIBBLE_CHECK(hidden.shape() == Shape({T, c.hidden}));
  std::optional<Arena::Scope> scope;
  if (tape == nullptr) {
    scope.emplace(cx.arena);
  } else {
    tape->border.clear();
    tape->traces.clear();
  }
  const bool watched = tap != nullptr && tap->block_output;

  Tensor h = cx.arena.f32({T, c.hidden});
  ops::embed(cx, ids, weights.embed, h);
  if (watched) tap->block_output(-1, h);
  for (int i = 0; i < c.layers; ++i) {
    if (cx.cancel.cancelled()) return cancelled("forward: stopped before layer {} of {}", i, c.layers);
    if (tape != nullptr) tape->border.push_back(copy_of(cx, h));
    std::optional<Arena::Scope> layer_scope;
    if (tape == nullptr || !tape->keep_traces) layer_scope.emplace(cx.arena);
    BlockTrace trace;
    block_forward(cx, c, weights.blocks[static_cast<size_t>(i)], i, segments, tap, h, trace);
    if (tape != nullptr && tape->keep_traces) tape->traces.push_back(trace);
    if (watched) tap->block_output(i, h);
  }
  if (tape != nullptr) tape->border.push_back(h);
  ops::rms_norm(cx, h, weights.final_norm, c.norm_eps, ops::Gain::one_plus, hidden);
  for (const Segment& s : segments) s.state->advance(s.end - s.begin);
  return {};
}

Status forward(Context& cx, const Weights& weights, std::span<const int32_t> ids, State& state, Tensor& hidden,
               const Tap* tap) {
  const Segment whole{&state, 0, static_cast<int64_t>(ids.size())};
  return forward(cx, weights, ids, {&whole, 1}, hidden, tap);
}

void head(Context& cx, const Weights& weights, const Tensor& hidden, Tensor& logits) {
  ops::linear(cx, hidden, weights.lm_head, logits);
}

Status read_prompt(Context& cx, const Weights& weights, std::span<const int32_t> ids, State& state, Tensor& logits) {
  constexpr size_t kPiece = 256;  // a multiple of 64: such cuts move no chunk of the delta rule and change no bit
  const Arena::Scope scope(cx.arena);
  Tensor hidden = cx.arena.f32({static_cast<int64_t>(std::min(ids.size(), kPiece)), weights.config.hidden});
  int64_t rows = 0;
  for (; !ids.empty(); ids = ids.subspan(static_cast<size_t>(rows))) {
    const std::span<const int32_t> piece = ids.first(std::min(ids.size(), kPiece));
    rows = static_cast<int64_t>(piece.size());
    Tensor out = hidden.rows(0, rows);
    NIBBLE_RETURN_IF_ERROR(forward(cx, weights, piece, state, out));
  }
  head(cx, weights, hidden.rows(rows - 1, rows), logits);
  return {};
}

}  // namespace nibble::model
