#include <cuda_runtime_api.h>

#include <array>
#include <fstream>

#include "tensor/device.h"
#include "tensor/failure_cuda.h"
#include "tensor/probe_cuda.h"

namespace nibble {
namespace {

constexpr const char* kMemoryHint =
    "a smaller --context, fewer --slots or --memory-limit; nvidia-smi shows who holds the rest";

// On a machine whose GPU shares its memory the driver counts the page cache as used; the kernel knows better.
uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string key; file >> key;) {
    uint64_t kib = 0;
    if (key == "MemAvailable:" && file >> kib) return kib << 10;
    file.ignore(256, '\n');
  }
  return 0;
}

Status not_ready(cudaError_t error, int index) {
  return cuda_failure(error, {DeviceKind::cuda, index}, "open");
}

std::string driver_found() {
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess || version == 0) return "none";
  return fmt::format("one for {}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace

Status cuda_failure(int error, Device device, std::string_view what) {
  const auto code = static_cast<cudaError_t>(error);
  switch (code) {
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
      return unavailable("--device cuda:{}: no such GPU here", device.index)
          .with_hint("nvidia-smi -L lists them; --device cpu runs without");
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary:
    case cudaErrorInitializationError:
    case cudaErrorSystemDriverMismatch:
      return unavailable("--device cuda: expected a driver for CUDA {}.{}, found {}", CUDART_VERSION / 1000,
                         CUDART_VERSION % 1000 / 10, driver_found())
          .with_hint("update the NVIDIA driver (580 or later for CUDA 13), or use --device cpu");
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
      return unsupported("cuda:{}: {}: no kernel for this GPU in this build", device.index, what)
          .with_hint("build with -DCMAKE_CUDA_ARCHITECTURES for it (nvidia-smi --query-gpu=compute_cap)");
    case cudaErrorMemoryAllocation:
      return out_of_memory("cuda:{}: {}: {}", device.index, what, cudaGetErrorString(code)).with_hint(kMemoryHint);
    case cudaErrorDevicesUnavailable:
      return unavailable("cuda:{}: {}: {}", device.index, what, cudaGetErrorString(code))
          .with_hint("another process holds the GPU alone; nvidia-smi shows which");
    default:
      return Status(Code::device, fmt::format("cuda:{}: {}: {} ({})", device.index, what, cudaGetErrorString(code),
                                              cudaGetErrorName(code)))
          .with_hint("the GPU's state is lost: start nibble again; dmesg and nvidia-smi say more");
  }
}

Result<DeviceInfo> open_device(Device device) {
  NIBBLE_CHECK(device.is_cuda());
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) return not_ready(error, device.index);
  if (device.index >= count) return not_ready(cudaErrorNoDevice, device.index);
  cudaDeviceProp properties{};
  cudaError_t error = cudaGetDeviceProperties(&properties, device.index);
  if (error == cudaSuccess) error = cudaSetDevice(device.index);
  if (error == cudaSuccess) error = cudaFree(nullptr);  // creates the context
  if (error != cudaSuccess) return not_ready(error, device.index);
  DeviceInfo info{.name = properties.name,
                  .architecture = properties.major * 10 + properties.minor,
                  .multiprocessors = properties.multiProcessorCount,
                  .memory_bytes = properties.totalGlobalMem,
                  .unified = properties.integrated != 0};
  if (!has_code_for_this_device()) {
    return unsupported("--device cuda: {} (compute capability {}.{}) has no kernels in this build", info.name,
                       properties.major, properties.minor)
        .with_hint(fmt::format("build with -DCMAKE_CUDA_ARCHITECTURES={}{}", info.architecture,
                               info.architecture >= 90 ? "a" : ""));
  }
  size_t free_bytes = 0, total = 0;
  error = cudaMemGetInfo(&free_bytes, &total);
  if (error != cudaSuccess) return not_ready(error, device.index);
  info.free_bytes = info.unified ? std::max<uint64_t>(free_bytes, available_memory()) : free_bytes;
  return info;
}

Result<std::byte*> cuda_allocate(Device device, size_t bytes) {
  void* p = nullptr;
  cudaError_t error = cudaSetDevice(device.index);
  if (error == cudaSuccess) error = cudaMalloc(&p, bytes);
  if (error == cudaSuccess) error = cudaMemset(p, 0, bytes);
  // It returns before the zeros are written, and a Stream would not wait for them.
  if (error == cudaSuccess) error = cudaStreamSynchronize(cudaStreamLegacy);
  if (error == cudaSuccess) return static_cast<std::byte*>(p);
  cudaGetLastError();
  if (error != cudaErrorMemoryAllocation) return not_ready(error, device.index);
  size_t free_bytes = 0, total = 0;
  cudaMemGetInfo(&free_bytes, &total);
  return out_of_memory("cuda:{}: expected {:.2f} GiB, {:.2f} of {:.2f} GiB are free", device.index,
                       static_cast<double>(bytes) / 0x1p30, static_cast<double>(free_bytes) / 0x1p30,
                       static_cast<double>(total) / 0x1p30)
      .with_hint(kMemoryHint);
}

void cuda_free(std::byte* p) {
  cudaFree(p);
}

}  // namespace nibble
