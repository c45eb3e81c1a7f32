// For tests of what runs on a GPU: a context there, and copies of host tensors between guard bytes. Without a GPU, or
// in a build without CUDA, such a test skips and says why.
#pragma once

#include "tensor/device.h"
#include "tensor/numeric.h"
#include "tests/support/op_test.h"

namespace nibble::test {

struct CudaContext {
  explicit CudaContext(std::unique_ptr<Stream> opened)
      : stream(std::move(opened)), cx(pool, Numeric::bf16_act, *stream) {
    NIBBLE_CHECK(cx.arena.reserve(size_t{256} << 20).ok());
  }
  ThreadPool pool{1};
  std::unique_ptr<Stream> stream;
  Context cx;
};

/// NIBBLE_CUDA_OR_SKIP(gpu): gpu becomes a CudaContext, or the test is skipped.
#define NIBBLE_CUDA_OR_SKIP(gpu)                                                      \
  auto gpu##_stream = ::nibble::Stream::open({::nibble::DeviceKind::cuda, 0});        \
  if (!gpu##_stream.ok()) GTEST_SKIP() << "no GPU: " << gpu##_stream.status().text(); \
  ::nibble::test::CudaContext gpu(std::move(*gpu##_stream))

/// Rounds to BF16: the same numbers as f32 for the oracle, as bf16 for the GPU.
inline TestTensor to_bf16(const TestTensor& x) {
  TestTensor y(x.view.shape(), DType::bf16);
  const auto values = x.values();
  for (size_t i = 0; i < values.size(); ++i) y.view.bf16()[i] = f32_to_bf16(values[i]);
  return y;
}
inline TestTensor to_f32(const TestTensor& x) {
  TestTensor y(x.view.shape());
  for (size_t i = 0; i < y.values().size(); ++i) y.values()[i] = bf16_to_f32(x.view.bf16()[i]);
  return y;
}

/// A copy of a host tensor on the GPU, between guard bytes.
class DeviceTensor {
 public:
  DeviceTensor(CudaContext& gpu, const TestTensor& host) : gpu_(gpu), host_(host.view.shape(), host.view.dtype()) {
    const std::vector<std::byte> guard(kGuard, std::byte{0xA5});
    auto memory = Buffer::on(gpu.cx.device, host.view.bytes() + 2 * kGuard);
    NIBBLE_CHECK(memory.ok());
    memory_ = std::move(*memory);
    view = Tensor(memory_.data() + kGuard, host.view.dtype(), host.view.shape(), gpu.cx.device);
    gpu.stream->copy(guard.data(), memory_.data(), kGuard);
    gpu.stream->copy(guard.data(), memory_.data() + kGuard + host.view.bytes(), kGuard);
    gpu.stream->copy(host.view, view);
    NIBBLE_CHECK(gpu.stream->wait().ok());
  }

  /// Waits for the GPU; what it left here.
  const TestTensor& fetch() {
    std::vector<std::byte> guards(2 * kGuard);
    gpu_.stream->copy(memory_.data(), guards.data(), kGuard);
    gpu_.stream->copy(memory_.data() + kGuard + view.bytes(), guards.data() + kGuard, kGuard);
    gpu_.stream->copy(view, host_.view);
    const Status status = gpu_.stream->wait();
    EXPECT_TRUE(status.ok()) << status.text();
    EXPECT_TRUE(std::ranges::all_of(guards, [](std::byte b) { return b == std::byte{0xA5}; })) << "out of bounds";
    return host_;
  }

 private:
  static constexpr size_t kGuard = 256;
  CudaContext& gpu_;
  TestTensor host_;
  Buffer memory_;

 public:
  Tensor view;
};

/// The numbers of a batch on the GPU.
class DeviceBatch {
 public:
  DeviceBatch(CudaContext& gpu, const std::vector<int32_t>& begin, const std::vector<int32_t>& slot,
              const std::vector<int32_t>& position)
      : begin_(gpu, ints(begin)), slot_(gpu, ints(slot)), position_(gpu, ints(position)) {}
  Tensor begin() const { return begin_.view; }
  Tensor slot() const { return slot_.view; }
  Tensor position() const { return position_.view; }

 private:
  static TestTensor ints(const std::vector<int32_t>& values) {
    TestTensor tensor({static_cast<int64_t>(values.size())}, DType::i32);
    std::ranges::copy(values, tensor.view.i32());
    return tensor;
  }
  DeviceTensor begin_, slot_, position_;
};

}  // namespace nibble::test
