#include "gate/top_logprobs.h"

#include <algorithm>
#include <numeric>

#include "gate/chat_reader.h"
#include "io/json_text.h"
#include "ops/loss/kl.h"

namespace nibble::gate {
namespace {

/// The ids of the `count` largest of a row, largest first.
std::vector<int32_t> largest(std::span<const float> row, int64_t count) {
  std::vector<int32_t> ids(row.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto end = ids.begin() + std::min(count, std::ssize(ids));
  std::partial_sort(ids.begin(), end, ids.end(), [row](int32_t a, int32_t b) {
    const float x = row[static_cast<size_t>(a)], y = row[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  return {ids.begin(), end};
}

/// [[[id, log-probability], …], …] of rows of logits.
void append_rows(Context& cx, const Tensor& logits, int64_t count, Json& rows) {
  const auto vocab = static_cast<size_t>(logits.dim(1));
  std::vector<std::vector<int32_t>> ids;
  std::vector<int32_t> first;
  const auto row = [&](int64_t t) { return std::span(logits.f32() + t * logits.dim(1), vocab); };
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    ids.push_back(largest(row(t), count));
    first.push_back(ids.back().front());
  }
  std::vector<double> log_prob(first.size());
  ops::label_log_prob(cx, logits, first, log_prob);
  for (size_t t = 0; t < ids.size(); ++t) {
    const std::span<const float> logit = row(static_cast<int64_t>(t));
    Json top = Json::array();
    for (const int32_t id : ids[t]) {
      const double below = static_cast<double>(logit[static_cast<size_t>(first[t])]) - logit[static_cast<size_t>(id)];
      top.push_back(Json::array({id, log_prob[t] - below}));
    }
    rows.push_back(std::move(top));
  }
}

}  // namespace

Status write_top_logprobs(Context& cx, const model::Weights& weights, const std::vector<std::vector<int32_t>>& chats,
                          int64_t count, const Path& file, const Progress& progress, Context* gpu) {
  NIBBLE_CHECK(count > 0);
  size_t total = 0, longest = 0, done = 0;
  for (const auto& chat : chats) {
    total += chat.size();
    longest = std::max(longest, chat.size());
  }
  NIBBLE_TRY(out, OutputFile::create(file));
  NIBBLE_TRY(reader, open_reader(weights, static_cast<int64_t>(longest), gpu));
  for (const auto& chat : chats) {
    const Arena::Scope scope(cx.arena);
    NIBBLE_RETURN_IF_ERROR(reader->read(cx, chat));
    Json rows = Json::array();
    for (int64_t begin = 0; begin < std::ssize(chat); begin += kLogitRows) {
      const Arena::Scope inner(cx.arena);
      const int64_t end = std::min(begin + kLogitRows, std::ssize(chat));
      NIBBLE_TRY(logits, reader->logits(cx, begin, end));
      append_rows(cx, logits, count, rows);
      report(progress, done + static_cast<size_t>(end), total, "log-probabilities");
    }
    done += chat.size();
    NIBBLE_RETURN_IF_ERROR(out.write(compact_json({{"ids", chat}, {"top", std::move(rows)}}) + "\n"));
  }
  return out.commit();
}

}  // namespace nibble::gate
