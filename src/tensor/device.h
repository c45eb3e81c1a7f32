// Device: the GPUs of this machine and their memory. A build without CUDA has none and says so at this door.
#pragma once

#include <string>

#include "base/result.h"
#include "tensor/tensor.h"

namespace nibble {

struct DeviceInfo {
  std::string name;      // "NVIDIA H200"
  int architecture = 0;  // 90: compute capability 9.0
  int multiprocessors = 0;
  uint64_t memory_bytes = 0;
  uint64_t free_bytes = 0;  // of a GPU that shares the machine's memory: what the machine can give
  bool unified = false;     // it shares the machine's memory
};

/// Makes a GPU ready and describes it. `unsupported` in a build without CUDA or without code for its architecture,
/// `unavailable` without a GPU, with a driver that is too old, or with a GPU that does not answer.
Result<DeviceInfo> open_device(Device device);

/// "cpu", "cuda" or "cuda:1".
Result<Device> parse_device(std::string_view text);

// For Buffer; elsewhere memory is a Buffer.
Result<std::byte*> cuda_allocate(Device device, size_t bytes);
void cuda_free(std::byte* p);

}  // namespace nibble
