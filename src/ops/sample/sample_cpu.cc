#include <algorithm>

#include "ops/sample/sample_backends.h"

namespace nibble::ops {
namespace {

constexpr float kMinusInfinity = -INFINITY;

// Equal logits by ascending id, so that an order never depends on the library's sort.
bool more_likely(const std::pair<float, int32_t>& a, const std::pair<float, int32_t>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

}  // namespace

int32_t sample_row(std::span<const float> logits, const SampleRule& rule,
                   std::vector<std::pair<float, int32_t>>& candidates) {
  const auto likeliest = std::max_element(logits.begin(), logits.end());
  const float best = *likeliest;
  NIBBLE_CHECK(best > kMinusInfinity);
  const auto first = static_cast<int32_t>(likeliest - logits.begin());
  if (rule.temperature == 0) return first;
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (is_candidate(logits[i], best, rule)) candidates.emplace_back(logits[i], static_cast<int32_t>(i));
  }
  const auto k = static_cast<size_t>(rule.top_k);
  const bool few = k > 0 && k < candidates.size();
  if (few) {
    std::nth_element(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(k), candidates.end(),
                     more_likely);
    candidates.resize(k);
  }
  if (few || rule.top_p < 1) std::sort(candidates.begin(), candidates.end(), more_likely);
  const auto weight = [&](const auto& candidate) { return sample_weight(log_share(candidate.first, best, rule)); };
  uint64_t total = 0;
  for (const auto& candidate : candidates) total += weight(candidate);
  if (total == 0) return first;  // the largest logit is infinite
  if (rule.top_p < 1) {
    const uint64_t need = weight_for_top_p(rule.top_p, total);
    total = 0;
    for (size_t i = 0; total < need; ++i) total += weight(candidates[i]);
  }
  const uint64_t drawn = draw_below(rule, total);
  uint64_t sum = 0;
  for (const auto& candidate : candidates) {
    sum += weight(candidate);
    if (sum > drawn) return candidate.second;
  }
  NIBBLE_CHECK(false && "a draw lies below the sum of the weights");
  return first;
}

void sample_cpu(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen, Tensor& ids,
                Tensor& position) {
  const Arena::Scope scope(cx.arena);
  const int64_t vocabulary = logits.dim(1);
  const Tensor row = cx.arena.f32({vocabulary});
  std::vector<std::pair<float, int32_t>> candidates;
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    SampleRule& rule = static_cast<SampleRule*>(rules.raw())[t];
    uint16_t* counts = rule.seen < 0 ? nullptr : seen.u16() + rule.seen * vocabulary;
    for (int64_t i = 0; i < vocabulary; ++i) {
      float x = logits.f32()[t * vocabulary + i];
      if (counts != nullptr) x = penalised(x, rule, counts[i] != 0, counts[i] & ~kSeenInPrompt);
      if (!allowed.empty() && allowed.u8()[i] == 0) x = kMinusInfinity;
      row.f32()[i] = x;
    }
    const int32_t id = sample_row(row.f32_span(), rule, candidates);
    ids.i32()[t] = id;
    if (counts != nullptr) ++counts[id];
    if (!position.empty()) ++position.i32()[t];
    ++rule.position;
  }
}

}  // namespace nibble::ops
