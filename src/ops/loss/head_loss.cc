#include "ops/loss/head_loss.h"

#include <algorithm>
#include <new>

#include "ops/backend.h"
#include "ops/loss/head_loss_cpu.h"
#include "ops/parallel.h"

namespace nibble::ops {
namespace {

void check(std::span<const HeadLossRow> rows, const Tensor& hidden, const Linear& head, const HeadTeacher& teacher,
           const HeadLossOptions& options) {
  NIBBLE_CHECK(hidden.rank() == 2 && hidden.dim(1) == head.in && head.out > 0);
  NIBBLE_CHECK(options.tau > 0 && options.chunk > 0);
  if (teacher.head != nullptr) {
    NIBBLE_CHECK(teacher.head->out == head.out && teacher.hidden.shape() == Shape({hidden.dim(0), teacher.head->in}));
  }
  int64_t next = 0;
  for (const HeadLossRow& row : rows) {
    NIBBLE_CHECK(next <= row.row && row.row < hidden.dim(0));
    NIBBLE_CHECK(row.label < head.out && (row.label >= 0 || row.ce_weight == 0));
    NIBBLE_CHECK(row.kl_weight == 0 || teacher.head != nullptr);
    next = row.row + 1;
  }
}

/// The listed rows side by side, in scratch.
Tensor gather(Context& cx, std::span<const HeadLossRow> rows, const Tensor& hidden) {
  const int64_t width = hidden.dim(1);
  const Tensor chosen = cx.arena.f32({std::ssize(rows), width});
  const float* from = hidden.f32();
  float* to = chosen.f32();
  cx.pool.parallel_for(std::ssize(rows), row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::copy_n(from + rows[static_cast<size_t>(i)].row * width, width, to + i * width);
    }
  });
  return chosen;
}

Tensor logits(Context& cx, const Tensor& hidden, const Linear& head) {
  Tensor z = cx.arena.f32({hidden.dim(0), head.out});
  linear(cx, hidden, head, z);
  return z;
}

void add(const HeadLossRow& row, const RowLoss& part, HeadLoss& sum) {
  sum.loss += part.loss;
  sum.ce += part.ce;
  sum.kl += part.kl;
  sum.teacher_entropy += part.teacher_entropy;
  sum.ce_rows += row.label >= 0;
  sum.kl_rows += row.kl_weight != 0;
  sum.correct += part.correct;
  sum.agree += part.agree;
}

/// Adds the rows of one chunk to `sum`. With `gradient` z, their logits, becomes dz.
void chunk_loss(Context& cx, std::span<const HeadLossRow> rows, const HeadTeacher& teacher, double tau, bool gradient,
                const Tensor& z, HeadLoss& sum) {
  const int64_t n = z.dim(1), count = std::ssize(rows);
  const bool distils = std::ranges::any_of(rows, [](const HeadLossRow& row) { return row.kl_weight != 0; });
  const Tensor wanted = distils ? logits(cx, gather(cx, rows, teacher.hidden), *teacher.head) : Tensor();
  const Tensor memory = cx.arena.take(DType::u8, {count * static_cast<int64_t>(sizeof(RowLoss))});
  auto* parts = static_cast<RowLoss*>(memory.raw());
  constexpr int64_t kStepsPerLogit = 16;
  cx.pool.parallel_for(count, row_grain(n * kStepsPerLogit), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* target = distils ? wanted.f32() + i * n : nullptr;
      new (parts + i) RowLoss(row_loss_cpu(rows[static_cast<size_t>(i)], tau, z.f32() + i * n, target, n, gradient));
    }
  });
  for (int64_t i = 0; i < count; ++i) add(rows[static_cast<size_t>(i)], parts[i], sum);
}

void zero(Context& cx, const Tensor& x) {
  float* to = x.f32();
  cx.pool.parallel_for(x.elements(), row_grain(1),
                       [&](int64_t begin, int64_t end) { std::fill(to + begin, to + end, 0.0f); });
}

/// dhead += dz^T chosen, and dz w' goes to the rows of dhidden.
void chunk_gradient(Context& cx, std::span<const HeadLossRow> rows, const Tensor& chosen, const Linear& head,
                    const Tensor& dz, const Tensor& dhidden, Tensor& dhead) {
  Tensor dchosen = dhidden.empty() ? Tensor() : cx.arena.f32(chosen.shape());
  linear_vjp(cx, dz, chosen, head, dchosen, dhead);
  if (dhidden.empty()) return;
  for (int64_t i = 0; i < std::ssize(rows); ++i) {
    const HeadLossRow& row = rows[static_cast<size_t>(i)];
    if (row.ce_weight == 0 && row.kl_weight == 0) continue;
    std::copy_n(dchosen.f32() + i * head.in, head.in, dhidden.f32() + row.row * head.in);
  }
}

}  // namespace

HeadLoss head_loss(Context& cx, std::span<const HeadLossRow> rows, const Tensor& hidden, const Linear& head,
                   const HeadTeacher& teacher, const HeadLossOptions& options) {
  require_cpu("head_loss", hidden);
  check(rows, hidden, head, teacher, options);
  HeadLoss sum;
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(options.chunk)) {
    const auto part = rows.subspan(begin, std::min(static_cast<size_t>(options.chunk), rows.size() - begin));
    Arena::Scope scope(cx.arena);
    const Tensor z = logits(cx, gather(cx, part, hidden), head);
    chunk_loss(cx, part, teacher, options.tau, false, z, sum);
  }
  return sum;
}

HeadLoss head_loss_vjp(Context& cx, std::span<const HeadLossRow> rows, const Tensor& hidden, const Linear& head,
                       const HeadTeacher& teacher, const HeadLossOptions& options, Tensor& dhidden, Tensor& dhead) {
  require_cpu("head_loss_vjp", hidden);
  check(rows, hidden, head, teacher, options);
  NIBBLE_CHECK(dhidden.empty() || dhidden.shape() == hidden.shape());
  if (!dhidden.empty()) zero(cx, dhidden);
  HeadLoss sum;
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(options.chunk)) {
    const auto part = rows.subspan(begin, std::min(static_cast<size_t>(options.chunk), rows.size() - begin));
    Arena::Scope scope(cx.arena);
    const Tensor chosen = gather(cx, part, hidden), z = logits(cx, chosen, head);
    chunk_loss(cx, part, teacher, options.tau, true, z, sum);
    chunk_gradient(cx, part, chosen, head, z, dhidden, dhead);
  }
  return sum;
}

}  // namespace nibble::ops
