#include "gate/divergence.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "gate/chat_reader.h"
#include "ops/loss/kl.h"

namespace nibble::gate {
namespace {

struct Sums {
  std::vector<double> kl, chat_kl;
  int64_t equal = 0;
  double log_prob = 0;
};

/// One model, and what is known of it so far.
struct Reader {
  std::unique_ptr<ChatReader> model;
  Sums sums;
};

/// Adds the log probability of the tokens that follow rows [begin, begin + logits.rows) and returns their number.
int64_t add_log_prob(Context& cx, const Tensor& logits, std::span<const int32_t> chat, int64_t begin, double& sum) {
  const int64_t labelled = std::min(begin + logits.dim(0) + 1, std::ssize(chat)) - begin - 1;  // row t predicts t+1
  const auto labels = chat.subspan(static_cast<size_t>(begin + 1), static_cast<size_t>(labelled));
  std::vector<double> log_prob(static_cast<size_t>(labelled));
  ops::label_log_prob(cx, logits.rows(0, labelled), labels, log_prob);
  for (double p : log_prob) sum += p;
  return labelled;
}

// Rows [begin, end) of one conversation; adds the number of labels among them.
Status compare_rows(Context& cx, Reader& a, std::vector<Reader>& others, std::span<const int32_t> chat, int64_t begin,
                    int64_t end, int64_t& labels) {
  const Arena::Scope scope(cx.arena);
  NIBBLE_TRY(logits_a, a.model->logits(cx, begin, end));
  labels += add_log_prob(cx, logits_a, chat, begin, a.sums.log_prob);
  std::vector<double> kl(static_cast<size_t>(end - begin));
  std::vector<uint8_t> equal(kl.size());
  for (Reader& b : others) {
    const Arena::Scope inner(cx.arena);
    NIBBLE_TRY(logits_b, b.model->logits(cx, begin, end));
    ops::softmax_compare(cx, logits_a, logits_b, kl, equal);
    b.sums.kl.insert(b.sums.kl.end(), kl.begin(), kl.end());
    b.sums.chat_kl.back() = std::accumulate(kl.begin(), kl.end(), b.sums.chat_kl.back());
    b.sums.equal += std::count(equal.begin(), equal.end(), uint8_t{1});
    add_log_prob(cx, logits_b, chat, begin, b.sums.log_prob);
  }
  return {};
}

double quantile(const std::vector<double>& sorted, double q) {  // nearest rank
  const auto n = static_cast<double>(sorted.size());
  return sorted[static_cast<size_t>(std::max(1.0, std::ceil(q * n))) - 1];
}

Divergence summarise(const Sums& a, Sums& sums, int64_t labelled) {
  Divergence d;
  const auto n = static_cast<double>(sums.kl.size());
  d.tokens = static_cast<int64_t>(sums.kl.size());
  d.chat_kl = std::move(sums.chat_kl);
  for (double kl : sums.kl) d.mean_kl += kl / n;
  double variance = 0;
  for (double kl : sums.kl) variance += (kl - d.mean_kl) * (kl - d.mean_kl) / std::max(1.0, n - 1);
  d.standard_error = std::sqrt(variance / n);
  std::sort(sums.kl.begin(), sums.kl.end());
  d.median_kl = quantile(sums.kl, 0.5);
  d.p99_kl = quantile(sums.kl, 0.99);
  d.top1 = static_cast<double>(sums.equal) / n;
  const double labels = std::max<double>(1, static_cast<double>(labelled));
  d.perplexity_a = std::exp(-a.log_prob / labels);
  d.perplexity_b = std::exp(-sums.log_prob / labels);
  return d;
}

}  // namespace

Json Divergence::json() const {
  return {{"tokens", tokens}, {"mean_kl", mean_kl}, {"standard_error", standard_error}, {"median_kl", median_kl},
          {"p99_kl", p99_kl}, {"top1", top1},       {"perplexity_a", perplexity_a},     {"perplexity_b", perplexity_b}};
}

Difference difference(const Divergence& model, const Divergence& from) {
  NIBBLE_CHECK(model.chat_tokens == from.chat_tokens);
  std::vector<double> apart(model.chat_kl.size());
  for (size_t i = 0; i < apart.size(); ++i) apart[i] = model.chat_kl[i] - from.chat_kl[i];
  return {model.mean_kl - from.mean_kl, ratio_bootstrap_95(apart, model.chat_tokens)};
}

Result<std::vector<Divergence>> measure_divergence(Context& cx, const model::Weights& a,
                                                   std::span<const model::Weights* const> b,
                                                   const std::vector<std::vector<int32_t>>& chats,
                                                   const Progress& progress, Context* gpu) {
  NIBBLE_CHECK(cx.numeric == Numeric::exact);
  size_t total = 0, longest = 0;
  for (const auto& chat : chats) {
    total += chat.size();
    longest = std::max(longest, chat.size());
  }
  Reader reference;
  NIBBLE_TRY(opened, open_reader(a, static_cast<int64_t>(longest), gpu));
  reference.model = std::move(opened);
  std::vector<Reader> others;
  others.reserve(b.size());
  for (const model::Weights* weights : b) {
    if (a.config.vocab != weights->config.vocab) {
      return invalid_argument("eval: expected one vocabulary, got {} and {} ids", a.config.vocab,
                              weights->config.vocab);
    }
    NIBBLE_TRY(other, open_reader(*weights, static_cast<int64_t>(longest), gpu));
    others.push_back({std::move(other), {}});
  }
  size_t done = 0;
  int64_t labels = 0;
  std::vector<int64_t> chat_tokens;
  chat_tokens.reserve(chats.size());
  for (const auto& chat : chats) {
    const Arena::Scope scope(cx.arena);
    NIBBLE_RETURN_IF_ERROR(reference.model->read(cx, chat));
    for (Reader& other : others) {
      NIBBLE_RETURN_IF_ERROR(other.model->read(cx, chat));
      other.sums.chat_kl.push_back(0);
    }
    for (int64_t begin = 0; begin < std::ssize(chat); begin += kLogitRows) {
      const int64_t end = std::min(begin + kLogitRows, std::ssize(chat));
      NIBBLE_RETURN_IF_ERROR(compare_rows(cx, reference, others, chat, begin, end, labels));
      report(progress, done + static_cast<size_t>(end), total, "eval");
    }
    done += chat.size();
    chat_tokens.push_back(std::ssize(chat));
  }
  if (done == 0) return invalid_argument("eval: expected at least one token of data");
  std::vector<Divergence> results;
  results.reserve(others.size());
  for (Reader& other : others) {
    results.push_back(summarise(reference.sums, other.sums, labels));
    results.back().chat_tokens = chat_tokens;
  }
  return results;
}

Result<Divergence> measure_divergence(Context& cx, const model::Weights& a, const model::Weights& b,
                                      const std::vector<std::vector<int32_t>>& chats, const Progress& progress,
                                      Context* gpu) {
  const model::Weights* const one = &b;
  NIBBLE_TRY(results, measure_divergence(cx, a, std::span(&one, 1), chats, progress, gpu));
  return std::move(results.front());
}

}  // namespace nibble::gate
