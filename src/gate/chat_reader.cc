#include "gate/chat_reader.h"

#include <algorithm>

#include "model/batch_forward.h"
#include "model/forward.h"

namespace nibble::gate {
namespace {

class CpuReader final : public ChatReader {
 public:
  CpuReader(const model::Weights& weights, int64_t longest)
      : weights_(weights), state_(weights.config, longest, DType::f32) {}

  Status read(Context& cx, std::span<const int32_t> chat) override {
    hidden_ = cx.arena.f32({std::ssize(chat), weights_.config.hidden});
    state_.reset();
    return model::forward(cx, weights_, chat, state_, hidden_);
  }
  Result<Tensor> logits(Context& cx, int64_t begin, int64_t end) override {
    Tensor out = cx.arena.f32({end - begin, weights_.config.vocab});
    model::head(cx, weights_, hidden_.rows(begin, end), out);
    return out;
  }

 private:
  const model::Weights& weights_;
  model::State state_;
  Tensor hidden_;
};

class GpuReader final : public ChatReader {
 public:
  static Result<std::unique_ptr<ChatReader>> open(Context& gpu, const model::Weights& host, int64_t longest) {
    const model::Config& c = host.config;
    const size_t scratch = std::max(model::kUploadBytes, model::batch_scratch_bytes(c, kRows, 1, longest));
    if (gpu.arena.reserved_bytes() < scratch) {
      NIBBLE_RETURN_IF_ERROR(gpu.stream->wait());
      NIBBLE_RETURN_IF_ERROR(gpu.arena.reserve(scratch));
    }
    auto reader = std::unique_ptr<GpuReader>(new GpuReader(gpu));
    NIBBLE_TRY(weights, model::to_device(gpu, host));
    NIBBLE_TRY(slots, model::Slots::create(c, gpu.device, 1, longest, DType::bf16));
    NIBBLE_TRY(hidden, Buffer::on(gpu.device, static_cast<size_t>(longest * c.hidden) * 2));
    NIBBLE_TRY(logits, Buffer::on(gpu.device, static_cast<size_t>(kLogitRows * c.vocab) * 4));
    NIBBLE_TRY(numbers, Buffer::on(gpu.device, static_cast<size_t>(kRows + 4) * 4));
    reader->weights_ = std::move(weights);
    reader->slots_ = std::move(slots);
    reader->hidden_ = std::move(hidden);
    reader->logits_ = std::move(logits);
    reader->numbers_ = std::move(numbers);
    return std::unique_ptr<ChatReader>(std::move(reader));
  }

  Status read(Context& cx, std::span<const int32_t> chat) override {
    gpu_.cancel = cx.cancel;
    const Tensor hidden = rows_of(std::ssize(chat));
    for (int64_t begin = 0; begin < std::ssize(chat); begin += kRows) {
      const int64_t rows = std::min(kRows, std::ssize(chat) - begin);
      // begin of the sequences, slot, position; then the ids.
      const int32_t numbers[] = {0, static_cast<int32_t>(rows), 0, static_cast<int32_t>(begin)};
      auto* const at = reinterpret_cast<int32_t*>(numbers_.data());
      gpu_.stream->copy(numbers, at, sizeof numbers);
      gpu_.stream->copy(chat.data() + begin, at + 4, static_cast<size_t>(rows) * 4);
      const ops::Batch batch{.sequences = 1,
                             .begin = Tensor(at, DType::i32, {2}, gpu_.device),
                             .slot = Tensor(at + 2, DType::i32, {1}, gpu_.device),
                             .position = Tensor(at + 3, DType::i32, {1}, gpu_.device),
                             .longest = rows,
                             .reach = begin + rows};
      Tensor piece = hidden.rows(begin, begin + rows);
      const Tensor ids(at + 4, DType::i32, {rows}, gpu_.device);
      NIBBLE_RETURN_IF_ERROR(model::batch_forward(gpu_, weights_, slots_, batch, ids, piece));
    }
    return gpu_.stream->wait();
  }

  Result<Tensor> logits(Context& cx, int64_t begin, int64_t end) override {
    NIBBLE_CHECK(end - begin <= kLogitRows);
    Tensor on_gpu = logits_.tensor(DType::f32, {end - begin, weights_.config.vocab});
    model::batch_head(gpu_, weights_, rows_of(end).rows(begin, end), on_gpu);
    const Tensor out = cx.arena.f32(on_gpu.shape());
    gpu_.stream->copy(on_gpu, out);
    NIBBLE_RETURN_IF_ERROR(gpu_.stream->wait());
    return out;
  }

 private:
  static constexpr int64_t kRows = 2048;  // of a forward

  explicit GpuReader(Context& gpu) : gpu_(gpu) {}
  Tensor rows_of(int64_t rows) const { return hidden_.tensor(DType::bf16, {rows, weights_.config.hidden}); }

  Context& gpu_;
  model::Weights weights_;
  model::Slots slots_;
  Buffer hidden_, logits_, numbers_;
};

}  // namespace

Result<std::unique_ptr<ChatReader>> open_reader(const model::Weights& weights, int64_t longest, Context* gpu) {
  if (gpu != nullptr) return GpuReader::open(*gpu, weights, longest);
  return std::unique_ptr<ChatReader>(std::make_unique<CpuReader>(weights, longest));
}

}  // namespace nibble::gate
