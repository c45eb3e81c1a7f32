// What stands in for the *_cuda files in a build without CUDA: every door refuses.
#include "tensor/device.h"
#include "tensor/marks.h"
#include "tensor/stream.h"

namespace nibble {
namespace {

Status refused() {
  return unsupported("--device cuda: this build has no CUDA")
      .with_hint("build with the CUDA toolkit installed: cmake -DNIBBLE_CUDA=ON, or use --device cpu");
}

}  // namespace

Result<DeviceInfo> open_device(Device) {
  return refused();
}
Result<std::byte*> cuda_allocate(Device, size_t) {
  return refused();
}
void cuda_free(std::byte*) {}
Result<std::unique_ptr<Stream>> Stream::open(Device) {
  return refused();
}
Result<PinnedBuffer> PinnedBuffer::allocate(size_t) {
  return refused();
}
void PinnedBuffer::Free::operator()(std::byte*) const {}
void write_clock_cuda(const Context&, uint64_t*) {}

}  // namespace nibble
