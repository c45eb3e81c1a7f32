#include "gate/op_table.h"

#include "gate/stats.h"
#include "model/state.h"

namespace nibble::gate {
namespace {

using model::PassOp;

// From mark to mark with nothing between, in the form in which a step has its marks.
Result<double> time_of_mark(Context& cx, Marks& marks) {
  constexpr int kMarks = 500, kRepeats = 5;
  const auto write = [&] {
    marks.begin();
    for (int i = 0; i < kMarks; ++i) marks.mark(0);
  };
  std::unique_ptr<Graph> graph;
  if (cx.device.is_cuda()) {
    NIBBLE_TRY(recorded, cx.stream->capture(write));
    graph = std::move(recorded);
  }
  std::vector<double> times;
  for (int i = 0; i <= kRepeats; ++i) {
    if (graph != nullptr) {
      cx.stream->replay(*graph);
    } else {
      write();
    }
    NIBBLE_TRY(laps, marks.laps());
    double us = 0;
    for (const Lap& lap : laps) us += lap.us;
    if (i > 0) times.push_back(us / kMarks);
  }
  return median(times);
}

struct Kind {
  int64_t count = 0;
  std::vector<double> us;  // of a pass
};

Status run_marked(Marks& marks, int repeats, const std::function<Status()>& pass, std::vector<Kind>& kinds) {
  for (int i = 0; i <= repeats; ++i) {
    NIBBLE_RETURN_IF_ERROR(pass());
    NIBBLE_TRY(laps, marks.laps());
    for (Kind& kind : kinds) {
      kind.count = 0;
      if (i > 0) kind.us.push_back(0);
    }
    for (const Lap& lap : laps) {
      Kind& kind = kinds[lap.op];
      ++kind.count;
      if (i > 0) kind.us.back() += lap.us;
    }
  }
  return {};
}

}  // namespace

Result<OpTable> measure_ops(Context& cx, model::BatchRunner& runner, int repeats, double whole_us,
                            const std::function<Status()>& pass, const std::function<void(PassOp, OpRow&)>& cost) {
  NIBBLE_TRY(marks, Marks::create(cx, kMostMarks));
  NIBBLE_TRY(mark_us, time_of_mark(cx, marks));
  NIBBLE_RETURN_IF_ERROR(runner.wait());
  std::vector<Kind> kinds(model::kPassOps);
  runner.set_marks(&marks);
  const Status status = run_marked(marks, repeats, pass, kinds);
  runner.set_marks(nullptr);
  NIBBLE_RETURN_IF_ERROR(status);
  OpTable table{.whole_us = whole_us, .mark_us = mark_us};
  for (int i = 0; i < model::kPassOps; ++i) {
    const Kind& kind = kinds[static_cast<size_t>(i)];
    if (kind.count == 0) continue;
    const auto op = static_cast<PassOp>(i);
    OpRow row{.op = model::name(op), .count = kind.count};
    row.us = median(kind.us) - static_cast<double>(kind.count) * mark_us;
    cost(op, row);
    table.rows.push_back(std::move(row));
  }
  return table;
}

Result<OpTable> prompt_ops(Context& cx, model::BatchRunner& runner, const model::Weights& weights,
                           std::span<const int32_t> ids, int repeats, double whole_us) {
  return measure_ops(
      cx, runner, repeats, whole_us, [&] { return runner.read(0, 0, ids); },
      [&](PassOp op, OpRow& row) { row.flops = model::prompt_flops(weights, op, static_cast<int64_t>(ids.size())); });
}

Result<OpTable> step_ops(Context& cx, model::BatchRunner& runner, const model::Weights& weights,
                         std::vector<model::Speaker> speakers, int64_t position, double whole_us) {
  constexpr int kRepeats = 20;
  for (model::Speaker& speaker : speakers) speaker.position = position;
  const DType kv = cx.numeric == Numeric::exact ? DType::f32 : DType::bf16;
  const auto step = [&]() -> Status {
    NIBBLE_RETURN_IF_ERROR(runner.set(speakers));
    return runner.step();
  };
  return measure_ops(cx, runner, kRepeats, whole_us, step, [&](PassOp op, OpRow& row) {
    const auto sequences = static_cast<int64_t>(speakers.size());
    row.bytes = static_cast<double>(model::step_bytes(weights, op, sequences, position, kv));
  });
}

OpRow OpTable::sum() const {
  OpRow sum{.op = "sum"};
  for (const OpRow& row : rows) {
    sum.count += row.count;
    sum.us += row.us;
    sum.bytes += row.bytes;
    sum.flops += row.flops;
  }
  return sum;
}

Json OpTable::json(double probe_gb_s) const {
  Json ops = Json::array();
  for (const OpRow& row : rows) {
    Json entry = {{"op", row.op}, {"count", row.count}, {"us", row.us}, {"share", row.us / whole_us}};
    if (row.bytes > 0) {
      entry.update({{"bytes", row.bytes}, {"gb_s", row.gb_s()}, {"share_of_probe", row.gb_s() / probe_gb_s}});
    }
    if (row.flops > 0) entry.update({{"flop", row.flops}, {"tflop_s", row.tflop_s()}});
    ops.push_back(std::move(entry));
  }
  return {{"ops", ops}, {"sum_us", sum().us}, {"rest_us", rest_us()}, {"whole_us", whole_us}, {"mark_us", mark_us}};
}

}  // namespace nibble::gate
