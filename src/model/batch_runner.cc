#include "model/batch_runner.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "ops/sample/argmax.h"

namespace nibble::model {
namespace {

// Steps of other sizes pad up to one of these, so that few graphs serve all.
constexpr std::array<int64_t, 11> kRows = {1, 2, 3, 4, 5, 6, 8, 12, 16, 32, kMostSlots};
int64_t padded_rows(int64_t rows) {
  return *std::ranges::lower_bound(kRows, rows);
}

// Likewise for how deep the deepest sequence may stand: what a step launches grows with it.
int64_t padded_reach(int64_t reach, int64_t capacity) {
  int64_t padded = 1024;
  while (padded < reach) padded *= 2;
  return std::min(padded, capacity);
}

bool takes_likeliest(const ops::SampleRule& rule) {
  return rule.temperature == 0 && rule.seen < 0;
}

std::span<const std::byte> bytes_of(const ops::SampleRule& rule) {
  return std::as_bytes(std::span(&rule, 1));
}

}  // namespace

int64_t BatchRunner::most_rows(const RunnerOptions& options) {
  return std::max(options.prefill_rows, padded_rows(options.slots));
}

uint64_t BatchRunner::fixed_bytes(const Config& config, const RunnerOptions& options) {
  const int64_t rows = padded_rows(options.slots), ids = most_rows(options);
  const int64_t rules = rows * static_cast<int64_t>(sizeof(ops::SampleRule)), seen = 2 * options.slots * config.vocab;
  return static_cast<uint64_t>(4 * (ids + 4 * rows) + rules + seen + config.vocab + 2 * ids * config.hidden +
                               4 * rows * config.vocab + 4096);
}

uint64_t BatchRunner::bytes_needed(const Config& config, const RunnerOptions& options) {
  return Slots::bytes_needed(config, options.slots, options.capacity, DType::bf16) + fixed_bytes(config, options) +
         batch_scratch_bytes(config, most_rows(options), options.slots, options.capacity);
}

Result<std::unique_ptr<BatchRunner>> BatchRunner::create(Context& cx, const Weights& weights,
                                                         const RunnerOptions& options,
                                                         std::span<const uint8_t> allowed) {
  NIBBLE_CHECK(options.slots >= 1 && options.slots <= kRows.back() && options.capacity >= 1);
  NIBBLE_CHECK(options.prefill_rows >= 1);
  std::unique_ptr<BatchRunner> runner(new BatchRunner(cx, weights, options));
  NIBBLE_RETURN_IF_ERROR(runner->reserve(allowed));
  return runner;
}

Status BatchRunner::reserve(std::span<const uint8_t> allowed) {
  const Config& c = weights_.config;
  NIBBLE_TRY(slots, Slots::create(c, cx_.device, options_.slots, options_.capacity,
                                  cx_.numeric == Numeric::exact ? DType::f32 : DType::bf16));
  slots_ = std::move(slots);
  const int64_t rows = padded_rows(options_.slots), most = most_rows(options_);
  size_t used = 0;
  const auto place = [&](DType dtype, const Shape& shape) {
    const Tensor tensor(memory_.data() == nullptr ? nullptr : memory_.data() + used, dtype, shape, cx_.device);
    used += (tensor.bytes() + 255) / 256 * 256;
    return tensor;
  };
  const auto lay_out = [&] {
    used = 0;
    ids_ = place(DType::i32, {most});
    begin_ = place(DType::i32, {rows + 1});
    slot_ = place(DType::i32, {rows});
    position_ = place(DType::i32, {rows});
    hidden_ = place(activation_type(cx_), {most, c.hidden});
    logits_ = place(DType::f32, {rows, c.vocab});
    rules_ = place(DType::u8, {rows, sizeof(ops::SampleRule)});
    seen_ = place(DType::u16, {options_.slots, c.vocab});
    if (!allowed.empty()) allowed_ = place(DType::u8, {c.vocab});
  };
  lay_out();
  NIBBLE_TRY(memory, Buffer::on(cx_.device, used));
  memory_ = std::move(memory);
  lay_out();
  if (!allowed.empty()) {
    NIBBLE_CHECK(static_cast<int64_t>(allowed.size()) == c.vocab);
    copy(std::as_bytes(allowed), allowed_);
  }
  if (!cx_.device.is_cuda()) return {};
  return cx_.arena.reserve(batch_scratch_bytes(c, most, options_.slots, options_.capacity));
}

void BatchRunner::copy(std::span<const std::byte> from, const Tensor& to) {
  NIBBLE_CHECK(from.size() <= to.bytes());
  if (cx_.device.is_cuda()) {
    cx_.stream->copy(from.data(), to.raw(), from.size());
  } else {
    std::memcpy(to.raw(), from.data(), from.size());
  }
}

Status BatchRunner::wait() {
  return cx_.device.is_cuda() ? cx_.stream->wait() : Status();
}

Status BatchRunner::read(int64_t slot, int64_t position, std::span<const int32_t> ids, const ops::SampleRule& rule) {
  NIBBLE_CHECK(!ids.empty() && position + static_cast<int64_t>(ids.size()) <= options_.capacity);
  int64_t rows = 0;
  if (marks_ != nullptr) marks_->begin();
  for (; !ids.empty(); ids = ids.subspan(static_cast<size_t>(rows)), position += rows) {
    rows = std::min(static_cast<int64_t>(ids.size()), options_.prefill_rows);
    const std::array<int32_t, 2> begin = {0, static_cast<int32_t>(rows)};
    const auto at = static_cast<int32_t>(position), in = static_cast<int32_t>(slot);
    copy(ids.first(static_cast<size_t>(rows)), ids_.rows(0, rows));
    copy(begin, begin_);
    copy({&in, 1}, slot_);
    copy({&at, 1}, position_);
    mark(PassOp::input);
    const ops::Batch batch{.sequences = 1,
                           .begin = begin_.rows(0, 2),
                           .slot = slot_.rows(0, 1),
                           .position = position_.rows(0, 1),
                           .longest = rows,
                           .reach = position + rows};
    Tensor hidden = hidden_.rows(0, rows);
    NIBBLE_RETURN_IF_ERROR(batch_forward(cx_, weights_, slots_, batch, ids_.rows(0, rows), hidden, marks_));
  }
  Tensor logits = logits_.rows(0, 1);
  batch_head(cx_, weights_, hidden_.rows(rows - 1, rows), logits);
  mark(PassOp::head);
  copy(bytes_of(rule), rules_);
  choose(1, takes_likeliest(rule), {});
  return {};
}

Status BatchRunner::begin_output(int64_t slot, std::span<const int32_t> prompt) {
  const Tensor row = seen_.rows(slot, slot + 1);
  std::vector<uint16_t> marks(static_cast<size_t>(row.elements()));
  for (const int32_t id : prompt) marks[static_cast<size_t>(id)] = ops::kSeenInPrompt;
  copy(std::as_bytes(std::span(marks)), row);
  return {};
}

// What follows row i of the logits takes the place of id i.
void BatchRunner::choose(int64_t rows, bool likeliest, Tensor position) {
  const Tensor logits = logits_.rows(0, rows);
  Tensor ids = ids_.rows(0, rows), rules = rules_.rows(0, rows);
  if (likeliest) {
    ops::argmax(cx_, logits, allowed_, ids, position);
  } else {
    ops::sample(cx_, logits, allowed_, rules, seen_, ids, position);
  }
  mark(PassOp::sampling);
}

void BatchRunner::set_marks(Marks* marks) {
  marks_ = marks;
  graphs_.clear();
}

void BatchRunner::mark(PassOp op) {
  if (marks_ != nullptr) marks_->mark(static_cast<uint8_t>(op));
}

Status BatchRunner::set(std::span<const Speaker> speakers) {
  const auto count = static_cast<int64_t>(speakers.size());
  NIBBLE_CHECK(count >= 1 && count <= options_.slots);
  rows_ = padded_rows(count);
  deepest_ = 0;
  likeliest_ = true;
  std::array<ops::SampleRule, kRows.back()> rules{};
  std::array<int32_t, kRows.back()> ids{}, slot{}, position{};
  std::array<int32_t, kRows.back() + 1> begin{};
  for (int64_t i = 0; i < rows_; ++i) {
    const auto n = static_cast<size_t>(i);
    begin[n + 1] = static_cast<int32_t>(i + 1);
    slot[n] = -1;
    if (i >= count) continue;
    NIBBLE_CHECK(speakers[n].position < options_.capacity);
    ids[n] = speakers[n].id;
    slot[n] = static_cast<int32_t>(speakers[n].slot);
    position[n] = static_cast<int32_t>(speakers[n].position);
    rules[n] = speakers[n].rule;
    likeliest_ = likeliest_ && takes_likeliest(rules[n]);
    deepest_ = std::max(deepest_, speakers[n].position);
  }
  const auto rows = static_cast<size_t>(rows_);
  copy({ids.data(), rows}, ids_);
  copy({slot.data(), rows}, slot_);
  copy({position.data(), rows}, position_);
  copy({begin.data(), rows + 1}, begin_);
  if (!likeliest_) copy(std::as_bytes(std::span(rules).first(rows)), rules_);
  return {};
}

Status BatchRunner::run_step(int64_t rows, int64_t reach) {
  const ops::Batch batch{.sequences = rows,
                         .begin = begin_.rows(0, rows + 1),
                         .slot = slot_.rows(0, rows),
                         .position = position_.rows(0, rows),
                         .longest = 1,
                         .reach = reach};
  Tensor hidden = hidden_.rows(0, rows), logits = logits_.rows(0, rows);
  if (marks_ != nullptr) marks_->begin();
  NIBBLE_RETURN_IF_ERROR(batch_forward(cx_, weights_, slots_, batch, ids_.rows(0, rows), hidden, marks_));
  batch_head(cx_, weights_, hidden, logits);
  mark(PassOp::head);
  choose(rows, likeliest_, batch.position);
  return {};
}

Status BatchRunner::step() {
  NIBBLE_CHECK(rows_ > 0 && deepest_ < options_.capacity);
  ++deepest_;
  const int64_t reach = padded_reach(deepest_, options_.capacity);
  if (!cx_.device.is_cuda() || !options_.graphs) {
    return run_step(rows_, reach);
  }
  auto& graph = graphs_[{rows_, reach, likeliest_}];
  if (graph == nullptr) {
    Status status;
    NIBBLE_TRY(captured, cx_.stream->capture([&] { status = run_step(rows_, reach); }));
    NIBBLE_RETURN_IF_ERROR(std::move(status));
    graph = std::move(captured);
  }
  nodes_ = graph->nodes();
  cx_.stream->replay(*graph);
  return {};
}

Status BatchRunner::logits_of(int64_t row, std::span<float> to) {
  const Tensor from = logits_.rows(row, row + 1);
  NIBBLE_CHECK(to.size_bytes() == from.bytes());
  if (!cx_.device.is_cuda()) {
    std::memcpy(to.data(), from.raw(), from.bytes());
    return {};
  }
  cx_.stream->copy(from.raw(), to.data(), from.bytes());
  return cx_.stream->wait();
}

Status BatchRunner::chosen(std::span<int32_t> ids) {
  if (!cx_.device.is_cuda()) {
    std::memcpy(ids.data(), ids_.raw(), ids.size_bytes());
    return {};
  }
  cx_.stream->copy(ids_.raw(), ids.data(), ids.size_bytes());
  return cx_.stream->wait();
}

}  // namespace nibble::model
