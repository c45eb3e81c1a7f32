#include "train/batches.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/rng.h"

namespace nibble::train {

BatchExtent largest_batch(std::span<const Sample> samples, const BatchOptions& options) {
  std::vector<int64_t> lengths;
  for (const Sample& sample : samples) lengths.push_back(sample.tokens());
  std::sort(lengths.begin(), lengths.end(), std::greater<>());
  const size_t most = options.conversations > 0 ? static_cast<size_t>(options.conversations) : lengths.size();
  const auto end = lengths.begin() + static_cast<std::ptrdiff_t>(std::min(most, lengths.size()));
  BatchExtent extent;
  extent.tokens = std::accumulate(lengths.begin(), end, int64_t{0});
  if (!lengths.empty()) extent.longest = lengths.front();
  if (options.max_tokens > 0) extent.tokens = std::min(extent.tokens, options.max_tokens);
  int64_t shortest = 0;  // together
  while (extent.sequences < end - lengths.begin()) {
    shortest += lengths[lengths.size() - 1 - static_cast<size_t>(extent.sequences)];
    if (options.max_tokens > 0 && shortest > options.max_tokens) break;
    ++extent.sequences;
  }
  return extent;
}

Batch make_batch(std::span<const Sample* const> samples, Objective objective) {
  Batch batch;
  batch.segments.push_back(0);
  for (const Sample* sample : samples) {
    const Objective wanted = sample->objective == Objective::by_mode ? objective : sample->objective;
    const bool ce = wanted == Objective::ce || wanted == Objective::both;
    const bool kl = wanted == Objective::kl || wanted == Objective::both;
    for (size_t t = 0; t < sample->ids.size(); ++t) {
      const float weight = sample->weight[t];
      const bool scored = weight > 0 && t + 1 < sample->ids.size();
      batch.ids.push_back(sample->ids[t]);
      batch.labels.push_back(scored ? sample->ids[t + 1] : -1);
      batch.ce.push_back(scored && ce ? weight : 0.0f);
      batch.kl.push_back(scored && kl ? weight : 0.0f);
      batch.ce_rows += scored && ce ? 1 : 0;
      batch.kl_rows += scored && kl ? 1 : 0;
      batch.ce_weight += batch.ce.back();
      batch.kl_weight += batch.kl.back();
    }
    batch.segments.push_back(batch.tokens());
    batch.samples.push_back(sample);
  }
  return batch;
}

std::vector<int64_t> epoch_order(int64_t count, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), int64_t{0});
  Rng rng(seed, static_cast<uint64_t>(epoch));
  for (size_t left = order.size(); left > 1; --left) {
    std::swap(order[left - 1], order[rng.below(static_cast<uint32_t>(left))]);
  }
  return order;
}

Result<Batches> Batches::create(std::span<const Sample> samples, const BatchOptions& options) {
  if (options.conversations < 0 || options.max_tokens < 0) {
    return invalid_argument("batch: expected limits of 0 or more, got {} conversations and {} tokens",
                            options.conversations, options.max_tokens);
  }
  if (samples.empty()) return invalid_argument("batch: expected samples, got none");
  for (const Sample& sample : samples) {
    if (options.max_tokens > 0 && sample.tokens() > options.max_tokens) {
      return invalid_argument("line {}: expected at most {} tokens, as a micro-batch may have, got {}", sample.line,
                              options.max_tokens, sample.tokens())
          .with_hint("--max-length drops long conversations, --batch-tokens makes room for them");
    }
  }
  return Batches(samples, options);
}

void Batches::plan(int64_t epoch) {
  if (planned_ == epoch) return;
  planned_ = epoch;
  order_.clear();
  begins_.clear();
  int64_t conversations = 0, tokens = 0;
  for (const int64_t i : epoch_order(static_cast<int64_t>(samples_.size()), options_.seed, epoch)) {
    const Sample& sample = samples_[static_cast<size_t>(i)];
    const bool full = (options_.conversations > 0 && conversations == options_.conversations) ||
                      (options_.max_tokens > 0 && tokens + sample.tokens() > options_.max_tokens);
    if (full || order_.empty()) {
      begins_.push_back(order_.size());
      conversations = tokens = 0;
    }
    order_.push_back(&sample);
    ++conversations;
    tokens += sample.tokens();
  }
  begins_.push_back(order_.size());
}

int64_t Batches::count(int64_t epoch) {
  plan(epoch);
  return static_cast<int64_t>(begins_.size()) - 1;
}

Batch Batches::next(Cursor& cursor) {
  NIBBLE_CHECK(cursor.epoch >= 0 && cursor.index >= 0);
  if (cursor.index >= count(cursor.epoch)) cursor = {cursor.epoch + 1, 0};
  plan(cursor.epoch);
  const auto index = static_cast<size_t>(cursor.index);
  const std::span<const Sample* const> all(order_);
  Batch batch = make_batch(all.subspan(begins_[index], begins_[index + 1] - begins_[index]), options_.objective);
  ++cursor.index;
  if (cursor.index >= count(cursor.epoch)) cursor = {cursor.epoch + 1, 0};
  return batch;
}

}  // namespace nibble::train
