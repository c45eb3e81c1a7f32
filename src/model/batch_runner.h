// BatchRunner: a model on one device with the states of several sequences: it reads prompts and lets all sequences say
// one token at once.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <tuple>

#include "model/batch_forward.h"
#include "ops/sample/sample.h"

namespace nibble::model {

constexpr int64_t kMostSlots = 64;

struct RunnerOptions {
  int64_t slots = 1;            // sequences at a time, at most kMostSlots
  int64_t capacity = 0;         // tokens of a sequence
  int64_t prefill_rows = 2048;  // tokens of a prompt that are read at once
  bool graphs = true;           // steps are recorded once and replayed
};

/// A sequence that goes on: its last token is not yet in its state.
struct Speaker {
  int64_t slot = 0;
  int64_t position = 0;  // of `id`
  int32_t id = 0;
  ops::SampleRule rule = {};  // of the ids that follow; the likeliest where it says nothing
};

/// Not thread-safe. All memory is reserved when it is made; nothing allocates afterwards.
class BatchRunner {
 public:
  /// `weights` are those of the context's device and, like the context, outlive the runner. ids with allowed[id] == 0
  /// are never chosen; empty: all may be.
  static Result<std::unique_ptr<BatchRunner>> create(Context& cx, const Weights& weights, const RunnerOptions& options,
                                                     std::span<const uint8_t> allowed = {});

  /// Bytes that create() will reserve on a GPU beside the weights: states (Slots), scratch, and fixed_bytes.
  static uint64_t bytes_needed(const Config& config, const RunnerOptions& options);
  /// Logits, the last hidden rows, what was seen of every slot, ids and positions; on any device.
  static uint64_t fixed_bytes(const Config& config, const RunnerOptions& options);
  /// The most rows of one forward.
  static int64_t most_rows(const RunnerOptions& options);

  /// Reads ids into a slot behind the `position` tokens it holds. The logits of the last id are then row 0.
  Status read(int64_t slot, int64_t position, std::span<const int32_t> ids, const ops::SampleRule& rule = {});
  /// What rules with `seen` = slot find there: the ids of the prompt, and no output yet.
  Status begin_output(int64_t slot, std::span<const int32_t> prompt);

  /// Whose tokens the next step() is about; at most `slots` of them.
  Status set(std::span<const Speaker> speakers);
  /// One token forward for all of them: row i of the logits is speaker i's, and the id that its rule chooses next takes
  /// the place of the last, a position further, also of the draw: step() may follow step().
  Status step();

  /// Of the last read() or step(); on the device. Rows [B,V] f32.
  Tensor logits() const { return logits_; }
  /// A row of them in the machine's memory; waits for the device.
  Status logits_of(int64_t row, std::span<float> to);
  /// The ids chosen by the last read() (one) or step(); waits for the device.
  Status chosen(std::span<int32_t> ids);
  Status wait();

  /// From here on every read() and step() begins anew there and marks each of its ops, a PassOp; null: no more. What
  /// was queued is done. Steps are recorded again, with the marks or without.
  void set_marks(Marks* marks);

  /// Kernels in the graph of the last step; 0 without graphs.
  int64_t nodes() const { return nodes_; }

 private:
  BatchRunner(Context& cx, const Weights& weights, const RunnerOptions& options)
      : cx_(cx), weights_(weights), options_(options) {}
  Status reserve(std::span<const uint8_t> allowed);
  void copy(std::span<const int32_t> from, const Tensor& to) { copy(std::as_bytes(from), to); }
  void copy(std::span<const std::byte> from, const Tensor& to);
  Status run_step(int64_t rows, int64_t reach);
  void choose(int64_t rows, bool likeliest, Tensor position);
  void mark(PassOp op);

  Context& cx_;
  const Weights& weights_;
  const RunnerOptions options_;
  Marks* marks_ = nullptr;
  Slots slots_;
  Buffer memory_;
  Tensor ids_, begin_, slot_, position_;  // i32
  Tensor logits_, hidden_, allowed_;
  Tensor rules_, seen_;                                                          // of ops::sample: by row, by slot
  int64_t rows_ = 0, deepest_ = 0, nodes_ = 0;                                   // of the speakers and their graph
  bool likeliest_ = true;                                                        // what all of them take
  std::map<std::tuple<int64_t, int64_t, bool>, std::unique_ptr<Graph>> graphs_;  // by rows, reach and likeliest_
};

}  // namespace nibble::model
