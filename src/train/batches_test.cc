#include "train/batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/rng.h"

namespace nibble::train {
namespace {

std::vector<Sample> samples(int count) {
  std::vector<Sample> list;
  Rng rng(5);
  for (int i = 0; i < count; ++i) {
    Sample& sample = list.emplace_back();
    sample.line = i + 1;
    const int64_t length = 1 + rng.below(60);
    for (int64_t t = 0; t < length; ++t) {
      sample.ids.push_back(i * 100 + static_cast<int32_t>(t));
      sample.weight.push_back(t % 2 == 1 && t + 1 < length ? 0.5f : 0.0f);
    }
  }
  return list;
}

TEST(Batches, LabelsAreTheNextIds) {
  Sample a, b;
  a.ids = {10, 11, 12, 13};
  a.weight = {0, 2, 1, 0};
  b.ids = {20, 21};
  b.weight = {1, 0};
  b.objective = Objective::kl;
  const Sample* both[] = {&a, &b};
  const Batch batch = make_batch(both, Objective::ce);
  EXPECT_EQ(batch.ids, (std::vector<int32_t>{10, 11, 12, 13, 20, 21}));
  EXPECT_EQ(batch.labels, (std::vector<int32_t>{-1, 12, 13, -1, 21, -1}));
  EXPECT_EQ(batch.ce, (std::vector<float>{0, 2, 1, 0, 0, 0}));
  EXPECT_EQ(batch.kl, (std::vector<float>{0, 0, 0, 0, 1, 0}));
  EXPECT_EQ(batch.segments, (std::vector<int64_t>{0, 4, 6}));
  EXPECT_EQ(batch.ce_rows, 2);
  EXPECT_EQ(batch.kl_rows, 1);
  EXPECT_EQ(batch.ce_weight, 3);
  EXPECT_EQ(batch.kl_weight, 1);
  EXPECT_EQ(make_batch(both, Objective::both).kl_rows, 3);
}

TEST(Batches, NoBatchIsLargerThanTheLargest) {
  const std::vector<Sample> all = samples(40);
  for (const BatchOptions& options : {BatchOptions{.conversations = 4, .max_tokens = 0}, BatchOptions{0, 0, 100},
                                      BatchOptions{.conversations = 3, .max_tokens = 150}, BatchOptions{0, 0, 0}}) {
    const BatchExtent extent = largest_batch(all, options);
    auto batches = Batches::create(all, options);
    ASSERT_TRUE(batches.ok());
    int64_t longest = 0;
    for (Cursor cursor; cursor.epoch < 5;) {
      const Batch batch = batches->next(cursor);
      EXPECT_LE(batch.tokens(), extent.tokens);
      EXPECT_LE(std::ssize(batch.samples), extent.sequences);
      for (const Sample* sample : batch.samples) longest = std::max(longest, sample->tokens());
    }
    EXPECT_EQ(longest, extent.longest);
  }
  EXPECT_EQ(largest_batch({}, {}).tokens, 0);
}

TEST(Batches, NothingIsABatchOfNothing) {
  const Batch batch = make_batch({}, Objective::ce);
  EXPECT_EQ(batch.tokens(), 0);
  EXPECT_EQ(batch.segments, std::vector<int64_t>{0});
  EXPECT_EQ(batch.ce_weight, 0);
  Sample masked;
  masked.ids = {1, 2};
  masked.weight = {0, 0};
  const Sample* one[] = {&masked};
  EXPECT_EQ(make_batch(one, Objective::both).labels, (std::vector<int32_t>{-1, -1}));
  EXPECT_EQ(make_batch(one, Objective::both).ce_rows, 0);
}

TEST(Batches, TheOrderDependsOnSeedAndEpoch) {
  const auto order = epoch_order(100, 3, 7);
  EXPECT_EQ(order, epoch_order(100, 3, 7));
  EXPECT_NE(order, epoch_order(100, 3, 8));
  EXPECT_NE(order, epoch_order(100, 4, 7));
  EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 100u);
  EXPECT_TRUE(epoch_order(0, 1, 1).empty());
  // Frozen: a run of this version and one resumed by the next see the same batches.
  EXPECT_EQ(epoch_order(8, 1, 0), (std::vector<int64_t>{1, 0, 4, 2, 5, 3, 6, 7}));
}

TEST(Batches, AnEpochHoldsEverySampleOnce) {
  const auto all = samples(103);
  for (const BatchOptions options : {BatchOptions{1, 8, 16384}, BatchOptions{1, 8, 100}, BatchOptions{1, 0, 64},
                                     BatchOptions{1, 1, 0}, BatchOptions{1, 0, 0}}) {
    auto batches = Batches::create(all, options);
    ASSERT_TRUE(batches.ok()) << batches.status().text();
    Cursor cursor;
    while (cursor.epoch < 2) {
      const int64_t epoch = cursor.epoch;
      std::multiset<int64_t> lines;
      int64_t count = 0;
      for (; cursor.epoch == epoch; ++count) {
        const Batch batch = batches->next(cursor);
        EXPECT_FALSE(batch.samples.empty());
        if (options.conversations > 0) {
          EXPECT_LE(static_cast<int64_t>(batch.samples.size()), options.conversations);
        }
        if (options.max_tokens > 0) {
          EXPECT_LE(batch.tokens(), options.max_tokens);
        }
        for (size_t b = 0; b < batch.samples.size(); ++b) {
          const Sample& sample = *batch.samples[b];
          lines.insert(sample.line);
          const auto begin = batch.ids.begin() + batch.segments[b];
          EXPECT_EQ(batch.segments[b + 1] - batch.segments[b], sample.tokens());
          EXPECT_TRUE(std::equal(sample.ids.begin(), sample.ids.end(), begin));
        }
      }
      EXPECT_EQ(count, batches->count(epoch));
      EXPECT_EQ(lines.size(), all.size());
      EXPECT_EQ(std::set<int64_t>(lines.begin(), lines.end()).size(), all.size());
    }
  }
}

TEST(Batches, ACursorResumes) {
  const auto all = samples(40);
  const BatchOptions options{9, 3, 100};
  auto run = Batches::create(all, options);
  ASSERT_TRUE(run.ok());
  Cursor cursor;
  std::vector<std::pair<Cursor, std::vector<int32_t>>> history;
  for (int i = 0; i < 50; ++i) {
    const Cursor before = cursor;
    history.emplace_back(before, run->next(cursor).ids);
  }
  EXPECT_GT(history.back().first.epoch, 1);
  for (const auto& [at, ids] : history) {
    auto resumed = Batches::create(all, options);
    ASSERT_TRUE(resumed.ok());
    Cursor copy = at;
    EXPECT_EQ(resumed->next(copy).ids, ids);
  }
}

TEST(Batches, RefusesWhatCannotFit) {
  const auto all = samples(10);
  EXPECT_EQ(Batches::create({}, {}).status().code(), Code::invalid_argument);
  EXPECT_FALSE(Batches::create(all, {.conversations = -1}).ok());
  const auto tight = Batches::create(all, {.max_tokens = 1});
  ASSERT_FALSE(tight.ok());
  EXPECT_NE(tight.status().message().find("expected at most 1 tokens"), std::string::npos) << tight.status().text();
}

}  // namespace
}  // namespace nibble::train
