#include "gate/divergence.h"

#include <algorithm>
#include <cmath>

#include "model/forward.h"
#include "ops/loss/kl.h"

namespace nibble::gate {
namespace {

constexpr int64_t kRows = 64;  // logits are held for this many tokens at a time: a 248k vocabulary is wide

struct Sums {
  std::vector<double> kl;
  int64_t equal = 0, labels = 0;
  double log_prob_a = 0, log_prob_b = 0;
};

// Rows [begin, end) of one conversation.
void compare_rows(Context& cx, const model::Weights& a, const model::Weights& b, const Tensor& hidden_a,
                  const Tensor& hidden_b, std::span<const int32_t> chat, int64_t begin, int64_t end, Sums& sums) {
  const Arena::Scope scope(cx.arena);
  const int64_t rows = end - begin, vocab = a.config.vocab;
  Tensor logits_a = cx.arena.f32({rows, vocab}), logits_b = cx.arena.f32({rows, vocab});
  model::head(cx, a, hidden_a.rows(begin, end), logits_a);
  model::head(cx, b, hidden_b.rows(begin, end), logits_b);

  std::vector<double> kl(static_cast<size_t>(rows));
  std::vector<uint8_t> equal(static_cast<size_t>(rows));
  ops::softmax_compare(cx, logits_a, logits_b, kl, equal);
  sums.kl.insert(sums.kl.end(), kl.begin(), kl.end());
  sums.equal += std::count(equal.begin(), equal.end(), uint8_t{1});

  const int64_t labelled = std::min(end + 1, static_cast<int64_t>(chat.size())) - begin - 1;  // row t predicts t+1
  const auto labels = chat.subspan(static_cast<size_t>(begin + 1), static_cast<size_t>(labelled));
  std::vector<double> log_prob(static_cast<size_t>(labelled));
  ops::label_log_prob(cx, logits_a.rows(0, labelled), labels, log_prob);
  for (double p : log_prob) sums.log_prob_a += p;
  ops::label_log_prob(cx, logits_b.rows(0, labelled), labels, log_prob);
  for (double p : log_prob) sums.log_prob_b += p;
  sums.labels += labelled;
}

double quantile(const std::vector<double>& sorted, double q) {  // nearest rank
  const auto n = static_cast<double>(sorted.size());
  return sorted[static_cast<size_t>(std::max(1.0, std::ceil(q * n))) - 1];
}

Divergence summarise(Sums& sums) {
  Divergence d;
  const auto n = static_cast<double>(sums.kl.size());
  d.tokens = static_cast<int64_t>(sums.kl.size());
  for (double kl : sums.kl) d.mean_kl += kl / n;
  double variance = 0;
  for (double kl : sums.kl) variance += (kl - d.mean_kl) * (kl - d.mean_kl) / std::max(1.0, n - 1);
  d.standard_error = std::sqrt(variance / n);
  std::sort(sums.kl.begin(), sums.kl.end());
  d.median_kl = quantile(sums.kl, 0.5);
  d.p99_kl = quantile(sums.kl, 0.99);
  d.top1 = static_cast<double>(sums.equal) / n;
  const double labels = std::max<double>(1, static_cast<double>(sums.labels));
  d.perplexity_a = std::exp(-sums.log_prob_a / labels);
  d.perplexity_b = std::exp(-sums.log_prob_b / labels);
  return d;
}

}  // namespace

Json Divergence::json() const {
  return {{"tokens", tokens}, {"mean_kl", mean_kl}, {"standard_error", standard_error}, {"median_kl", median_kl},
          {"p99_kl", p99_kl}, {"top1", top1},       {"perplexity_a", perplexity_a},     {"perplexity_b", perplexity_b}};
}

Result<Divergence> measure_divergence(Context& cx, const model::Weights& a, const model::Weights& b,
                                      const std::vector<std::vector<int32_t>>& chats, const Progress& progress) {
  NIBBLE_CHECK(cx.numeric == Numeric::exact);
  if (a.config.vocab != b.config.vocab) {
    return invalid_argument("eval: expected one vocabulary, got {} and {} ids", a.config.vocab, b.config.vocab);
  }
  size_t total = 0, longest = 0;
  for (const auto& chat : chats) {
    total += chat.size();
    longest = std::max(longest, chat.size());
  }
  model::State state_a(a.config, static_cast<int64_t>(longest), DType::f32);
  model::State state_b(b.config, static_cast<int64_t>(longest), DType::f32);
  Sums sums;
  for (const auto& chat : chats) {
    const Arena::Scope scope(cx.arena);
    const auto T = static_cast<int64_t>(chat.size());
    Tensor hidden_a = cx.arena.f32({T, a.config.hidden}), hidden_b = cx.arena.f32({T, b.config.hidden});
    state_a.reset();
    state_b.reset();
    NIBBLE_RETURN_IF_ERROR(model::forward(cx, a, chat, state_a, hidden_a));
    NIBBLE_RETURN_IF_ERROR(model::forward(cx, b, chat, state_b, hidden_b));
    for (int64_t begin = 0; begin < T; begin += kRows) {
      compare_rows(cx, a, b, hidden_a, hidden_b, chat, begin, std::min(begin + kRows, T), sums);
    }
    report(progress, sums.kl.size(), total, "eval");
  }
  if (sums.kl.empty()) return invalid_argument("eval: expected at least one token of data");
  return summarise(sums);
}

}  // namespace nibble::gate
