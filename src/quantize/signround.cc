#include "quantize/signround.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <optional>

#include "base/rng.h"
#include "model/backward.h"
#include "ops/quant/nvfp4.h"
#include "quantize/dense_values.h"

namespace nibble::quantize {
namespace {

constexpr int64_t kBlock = kNvfp4Block;

// Gradients of the layer's form: none is wanted yet.
model::BlockWeights no_gradients(const model::BlockWeights& block) {
  model::BlockWeights none;
  if (block.gdn) none.gdn.emplace();
  if (block.attention) none.attention.emplace();
  return none;
}

ops::Linear* find_linear(const model::Config& config, const std::string& prefix, model::BlockWeights& block,
                         const std::string& module) {
  for (const std::vector<Reader>& readers : sites_of(config, prefix, block)) {
    for (const Reader& reader : readers) {
      if (reader.module == module) return reader.linear;
    }
  }
  NIBBLE_CHECK(false);
  return nullptr;
}

// Every k-th batch, so that about as many tokens as wanted remain.
std::vector<Batch> evaluation_part(std::span<const Batch> batches, int64_t tokens) {
  int64_t all = 0;
  for (const Batch& batch : batches) all += batch.tokens();
  const auto every = static_cast<size_t>(std::max<int64_t>(1, all / std::max<int64_t>(1, tokens)));
  std::vector<Batch> part;
  for (size_t i = 0; i < batches.size(); i += every) part.push_back(batches[i]);
  return part;
}

// What codes of scale bytes that were trained did to the weights.
ops::Nvfp4Stats statistics(Context& cx, const ops::Linear& source, const ops::Linear& quantized) {
  const Arena::Scope scope(cx.arena);
  const int64_t N = source.out, K = source.in;
  const Tensor w = cx.arena.f32({N, K}), decoded = cx.arena.f32({N, K});
  dense_values(cx, source.weight, w);
  ops::nvfp4_dequantize(cx, quantized.weight, quantized.block_scale, quantized.tensor_scale, decoded);
  ops::Nvfp4Stats stats;
  stats.blocks = N * K / kBlock;
  for (int64_t b = 0; b < stats.blocks; ++b) {
    const uint8_t scale = quantized.block_scale.u8()[b];
    stats.floor_blocks += scale == 0x01;
    stats.low_blocks += e4m3_to_f32(scale) < 0x1p-6f;
    stats.top_blocks += scale == kE4m3MaxByte;
  }
  for (int64_t row = 0; row < N; ++row) {
    bool was = false, is = false;
    for (int64_t i = row * K; i < (row + 1) * K; ++i) {
      const auto x = static_cast<double>(w.f32()[i]), e = decoded.f32()[i] - x;
      stats.energy += x * x;
      stats.error += e * e;
      was = was || x != 0;
      is = is || decoded.f32()[i] != 0;
    }
    if (!was || is) continue;
    if (stats.lost_rows++ == 0) stats.first_lost_row = row;
  }
  return stats;
}

bool all_zero(const ops::Linear& linear) {
  const uint8_t* codes = linear.weight.u8();
  return std::all_of(codes, codes + linear.weight.elements(), [](uint8_t byte) { return byte == 0; });
}

// Conversations in a random order, a new one whenever all were seen.
class Shuffle {
 public:
  Shuffle(std::span<const Batch> batches, uint64_t seed, uint64_t stream) : rng_(seed, stream) {
    for (const Batch& batch : batches) {
      int64_t begin = batch.begin;
      for (const int64_t length : batch.lengths) {
        if (length > 0) chats_.push_back({begin, begin + length});
        begin += length;
      }
    }
    next_ = chats_.size();
  }

  struct Rows {
    int64_t begin, end;
  };
  /// Whole conversations with at least so many tokens, or all of them.
  std::vector<Rows> draw(int64_t tokens) {
    std::vector<Rows> drawn;
    while (tokens > 0 && drawn.size() < chats_.size()) {
      if (next_ == chats_.size()) {
        for (size_t i = chats_.size(); i > 1; --i) {
          std::swap(chats_[i - 1], chats_[rng_.below(static_cast<uint32_t>(i))]);
        }
        next_ = 0;
      }
      drawn.push_back(chats_[next_++]);
      tokens -= drawn.back().end - drawn.back().begin;
    }
    return drawn;
  }

 private:
  Rng rng_;
  std::vector<Rows> chats_;
  size_t next_ = 0;
};

class Trainer {
 public:
  Trainer(Context& cx, const model::Config& config, int layer, const HiddenStates& in, const HiddenStates& reference,
          const model::BlockWeights& block)
      : cx_(cx.pool, cx.numeric),
        config_(config),
        in_(in),
        reference_(reference),
        block_(block),
        gradients_(no_gradients(block)) {
    config_.layers = 1;
    config_.layer_types = {config.layer_types[static_cast<size_t>(layer)]};
  }

  void train(const std::string& prefix, const ops::Linear& codes, SignroundStart start) {
    linears_.emplace_back(codes, std::move(start.weights));
    find_linear(config_, prefix, gradients_, start.module)->weight = linears_.back().gradient();
  }

  /// One step on these conversations.
  void step(std::span<const Shuffle::Rows> chats, const SignroundLinear::Rates& rates) {
    {
      const Arena::Scope scope(cx_.arena);
      add_gradients(chats);
    }
    for (SignroundLinear& linear : linears_) linear.step(cx_, rates);
    // Steps differ in their tokens: one block for all tensors, or the holes between them would grow.
    if (cx_.arena.reserved_bytes() > room_) {
      room_ = cx_.arena.peak_bytes();
      NIBBLE_CHECK(cx_.arena.reserve(room_).ok());
    }
  }

  /// Mean squared error over the runner's batches.
  Result<double> loss(LayerRunner& runner) const {
    double sum = 0;
    int64_t elements = 0;
    NIBBLE_RETURN_IF_ERROR(
        runner.whole(block_, in_, nullptr, [&](const Batch& batch, const model::BlockTrace&, const Tensor& h) {
          const float* const wanted = reference_.rows(batch.begin, batch.end).f32();
          for (int64_t i = 0; i < h.elements(); ++i) {
            const double e = static_cast<double>(h.f32()[i]) - wanted[i];
            sum += e * e;
          }
          elements += h.elements();
          reference_.drop(batch.begin, batch.end);
          return Status();
        }));
    return sum / static_cast<double>(std::max<int64_t>(1, elements));
  }

  bool empty() const { return linears_.empty(); }
  void keep() {
    for (SignroundLinear& linear : linears_) linear.keep();
  }
  void restore() const {
    for (const SignroundLinear& linear : linears_) linear.restore();
  }

 private:
  void add_gradients(std::span<const Shuffle::Rows> chats) {
    int64_t tokens = 0;
    for (const auto& chat : chats) tokens += chat.end - chat.begin;
    const Tensor h_in = cx_.arena.f32({tokens, config_.hidden}), wanted = cx_.arena.f32({tokens, config_.hidden});
    Tensor h = cx_.arena.f32({tokens, config_.hidden});
    std::vector<model::Segment> segments;
    int64_t row = 0;
    for (size_t i = 0; i < chats.size(); ++i) {
      const auto [begin, end] = chats[i];
      if (states_.size() == i) states_.emplace_back(config_, end - begin, DType::f32);
      if (states_[i].capacity() < end - begin) states_[i] = model::State(config_, end - begin, DType::f32);
      states_[i].reset();
      segments.push_back({&states_[i], row, row + end - begin});
      copy(in_, chats[i], h_in, row);
      copy(reference_, chats[i], wanted, row);
      row += end - begin;
    }
    std::memcpy(h.raw(), h_in.raw(), h.bytes());
    model::BlockTrace trace;
    model::block_forward(cx_, config_, block_, 0, segments, nullptr, h, trace);
    const float factor = 2.0f / static_cast<float>(h.elements());
    for (int64_t i = 0; i < h.elements(); ++i) h.f32()[i] = factor * (h.f32()[i] - wanted.f32()[i]);
    model::block_vjp(cx_, config_, block_, segments, h_in, trace, gradients_, h);
  }

  static void copy(const HiddenStates& from, Shuffle::Rows rows, const Tensor& to, int64_t row) {
    const Tensor source = from.rows(rows.begin, rows.end);
    std::memcpy(to.rows(row, row + rows.end - rows.begin).raw(), source.raw(), source.bytes());
    from.drop(rows.begin, rows.end);
  }

  Context cx_;            // with scratch of its own
  size_t room_ = 0;       // bytes of its arena
  model::Config config_;  // of this layer alone
  const HiddenStates &in_, &reference_;
  const model::BlockWeights& block_;
  model::BlockWeights gradients_;
  std::vector<SignroundLinear> linears_;
  std::deque<model::State> states_;  // segments point to them
};

}  // namespace

void signround_start(Context& cx, std::span<const Reader> readers, const Tensor& hessian, const GptqOptions& options,
                     size_t first, LayerSolution& solution, std::vector<SignroundStart>& starts) {
  std::optional<GptqFactor> factor;
  for (size_t i = first; i < solution.linears.size(); ++i) {
    SolvedModule& of = solution.linears[i];
    ops::Linear& codes = of.solved.linear;
    if (codes.format != ops::WeightFormat::nvfp4 || !codes.low_rank_a.empty() || all_zero(codes)) continue;
    const auto reader = std::ranges::find(readers, of.module, &Reader::module);
    NIBBLE_CHECK(reader != readers.end());
    const Arena::Scope scope(cx.arena);
    SignroundStart start{of.module, OwnedTensor(DType::f32, {codes.out, codes.in})};
    dense_values(cx, reader->linear->weight, start.weights.view);
    if (!hessian.empty()) {
      if (!factor) factor = GptqFactor::make(cx, hessian, options);
      const Tensor w = cx.arena.f32({codes.out, codes.in});
      std::memcpy(w.raw(), start.weights.view.raw(), w.bytes());
      const GptqReport report = gptq_encode(cx, w, *factor, hessian, {codes.tensor_scale, false}, codes.block_scale,
                                            options, codes.weight, start.weights.view);
      of.solved.stats = statistics(cx, *reader->linear, codes);
      if (report.fell_back_to_nearest) of.note = "inputs too alike for GPTQ: trained from rounding to nearest";
    }
    starts.push_back(std::move(start));
  }
}

Result<SignroundReport> signround(Context& cx, const model::Config& config, int layer, const std::string& prefix,
                                  std::span<const Batch> batches, const HiddenStates& in, const HiddenStates& reference,
                                  const model::BlockWeights& unquantized, const model::BlockWeights& block,
                                  std::vector<SignroundStart> starts, const SignroundOptions& options,
                                  LayerSolution& solution) {
  Trainer trainer(cx, config, layer, in, reference, block);
  std::vector<SolvedModule*> trained;
  for (SignroundStart& start : starts) {
    const auto of = std::ranges::find(solution.linears, start.module, &SolvedModule::module);
    NIBBLE_CHECK(of != solution.linears.end());
    trainer.train(prefix, of->solved.linear, std::move(start));
    trained.push_back(&*of);
  }
  SignroundReport report;
  if (trainer.empty()) return report;

  const std::vector<Batch> evaluated = evaluation_part(batches, options.evaluation_tokens);
  LayerRunner evaluation(cx, config, layer, evaluated);
  NIBBLE_TRY(first_loss, trainer.loss(evaluation));
  report.first_loss = report.loss = first_loss;
  Shuffle shuffle(batches, options.seed, static_cast<uint64_t>(layer));
  const float rate = options.rate > 0 ? options.rate : 1.0f / static_cast<float>(options.iterations);
  for (int i = 0; i < options.iterations; ++i) {
    if (cx.cancel.cancelled()) return cancelled("signround: stopped");
    const float now = rate * static_cast<float>(options.iterations - i) / static_cast<float>(options.iterations);
    trainer.step(shuffle.draw(options.tokens), {now, now * options.scale_rate, options.momentum});
    if ((i + 1) % options.evaluate_every != 0 && i + 1 < options.iterations) continue;
    NIBBLE_TRY(loss, trainer.loss(evaluation));
    if (!(loss < report.loss)) continue;
    report.loss = loss;
    report.iteration = i + 1;
    trainer.keep();
  }
  trainer.restore();
  model::BlockWeights source = unquantized;
  for (SolvedModule* of : trained) {
    of->solved.stats = statistics(cx, *find_linear(config, prefix, source, of->module), of->solved.linear);
    of->loss = 0;
  }
  return report;
}

}  // namespace nibble::quantize
