// Models on a GPU, for tests: logits of a whole sequence, and replies.
#pragma once

#include <algorithm>

#include "model/batch_runner.h"
#include "tests/support/models.h"

namespace nibble::test {

/// A GPU, or why there is none.
struct DeviceContext {
  static Result<std::unique_ptr<DeviceContext>> open() {
    NIBBLE_TRY(stream, Stream::open({DeviceKind::cuda, 0}));
    return std::make_unique<DeviceContext>(std::move(stream));
  }
  explicit DeviceContext(std::unique_ptr<Stream> opened)
      : stream(std::move(opened)), cx(pool, Numeric::bf16_act, *stream) {}
  ThreadPool pool{1};
  std::unique_ptr<Stream> stream;
  Context cx;
};

/// A model copied to a GPU.
struct DeviceModel {
  DeviceModel(DeviceContext& device, const model::Weights& host) : device(device) {
    EXPECT_TRUE(device.cx.arena.reserve(model::kUploadBytes).ok());
    auto moved = model::to_device(device.cx, host);
    EXPECT_TRUE(moved.ok()) << moved.status().text();
    weights = std::move(*moved);
  }

  /// logits [T,V] of all positions, in one call from an empty state.
  OwnedTensor logits(std::span<const int32_t> ids) {
    Context& cx = device.cx;
    const auto T = static_cast<int64_t>(ids.size());
    const model::Config& c = weights.config;
    EXPECT_TRUE(cx.arena.reserve(model::batch_scratch_bytes(c, T, 1, T)).ok());
    auto slots = std::move(model::Slots::create(c, cx.device, 1, T, DType::bf16)).value();
    const int32_t numbers[] = {0, static_cast<int32_t>(T), 0, 0};  // begin, slot, position
    const Buffer small = on_device(numbers, sizeof numbers), input = on_device(ids.data(), ids.size_bytes());
    auto* at = reinterpret_cast<int32_t*>(small.data());
    const ops::Batch batch{.sequences = 1,
                           .begin = Tensor(at, DType::i32, {2}, cx.device),
                           .slot = Tensor(at + 2, DType::i32, {1}, cx.device),
                           .position = Tensor(at + 3, DType::i32, {1}, cx.device),
                           .longest = T,
                           .reach = T};
    const Buffer hidden = std::move(Buffer::on(cx.device, static_cast<size_t>(T * c.hidden) * 2)).value();
    const Buffer logits = std::move(Buffer::on(cx.device, static_cast<size_t>(T * c.vocab) * 4)).value();
    Tensor h = hidden.tensor(DType::bf16, {T, c.hidden}), l = logits.tensor(DType::f32, {T, c.vocab});
    EXPECT_TRUE(model::batch_forward(cx, weights, slots, batch, input.tensor(DType::i32, {T}), h).ok());
    EXPECT_TRUE(device.stream->wait().ok());
    EXPECT_TRUE(cx.arena.reserve(model::batch_scratch_bytes(c, T, 1, T)).ok());
    model::batch_head(cx, weights, h, l);
    OwnedTensor out(DType::f32, {T, c.vocab});
    device.stream->copy(l, out.view);
    const Status status = device.stream->wait();
    EXPECT_TRUE(status.ok()) << status.text();
    return out;
  }

  Buffer on_device(const void* from, size_t bytes) {
    Buffer buffer = std::move(Buffer::on(device.cx.device, bytes)).value();
    device.stream->copy(from, buffer.data(), bytes);
    EXPECT_TRUE(device.stream->wait().ok());
    return buffer;
  }

  DeviceContext& device;
  model::Weights weights;
};

}  // namespace nibble::test
