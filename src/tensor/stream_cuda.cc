#include <cuda_runtime_api.h>

#include "tensor/device.h"
#include "tensor/failure_cuda.h"
#include "tensor/stream.h"

namespace nibble {
namespace {

struct CudaGraph final : Graph {
  CudaGraph(cudaGraphExec_t exec, int64_t count) : exec(exec), count(count) {}
  ~CudaGraph() override { cudaGraphExecDestroy(exec); }
  int64_t nodes() const override { return count; }

  cudaGraphExec_t exec;
  int64_t count;
};

class CudaStream final : public Stream {
 public:
  CudaStream(Device device, cudaStream_t stream, cudaEvent_t begin, cudaEvent_t end)
      : device_(device), stream_(stream), begin_(begin), end_(end) {}
  ~CudaStream() override {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }

  Device device() const override { return device_; }
  void* native() const override { return stream_; }

  void copy(const void* from, void* to, size_t bytes) override {
    if (bytes > 0 && error_.ok()) note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "copy");
  }
  void fill_zero(void* to, size_t bytes) override {
    if (bytes > 0 && error_.ok()) note(cudaMemsetAsync(to, 0, bytes, stream_), "fill_zero");
  }

  Status wait() override {
    note(cudaStreamSynchronize(stream_), "wait");
    return error_;
  }

  Result<std::unique_ptr<Graph>> capture(const std::function<void()>& work) override {
    if (!error_.ok()) return error_;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    note(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture");
    work();
    note(cudaStreamEndCapture(stream_, &graph), "capture");
    size_t count = 0;
    if (error_.ok()) note(cudaGraphGetNodes(graph, nullptr, &count), "capture");
    if (error_.ok()) note(cudaGraphInstantiate(&exec, graph, 0), "capture");
    if (error_.ok()) note(cudaGraphUpload(exec, stream_), "capture");
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (!error_.ok()) return error_;
    return std::unique_ptr<Graph>(std::make_unique<CudaGraph>(exec, static_cast<int64_t>(count)));
  }
  void replay(const Graph& graph) override {
    if (error_.ok()) note(cudaGraphLaunch(static_cast<const CudaGraph&>(graph).exec, stream_), "replay");
  }

  Result<double> time_ms(const std::function<void()>& work) override {
    note(cudaEventRecord(begin_, stream_), "time");
    work();
    note(cudaEventRecord(end_, stream_), "time");
    NIBBLE_RETURN_IF_ERROR(wait());
    float ms = 0;
    note(cudaEventElapsedTime(&ms, begin_, end_), "time");
    if (!error_.ok()) return error_;
    return static_cast<double>(ms);
  }

  void note(int error, const char* op) override {
    if (error == cudaSuccess || !error_.ok()) return;
    error_ = cuda_failure(error, device_, op);
  }

 private:
  Device device_;
  cudaStream_t stream_;
  cudaEvent_t begin_, end_;
  Status error_;
};

}  // namespace

Result<std::unique_ptr<Stream>> Stream::open(Device device) {
  NIBBLE_TRY(info, open_device(device));
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaEventCreate(&begin);
  if (error == cudaSuccess) error = cudaEventCreate(&end);
  if (error != cudaSuccess) return cuda_failure(error, device, info.name);
  return std::unique_ptr<Stream>(std::make_unique<CudaStream>(device, stream, begin, end));
}

Result<PinnedBuffer> PinnedBuffer::allocate(size_t bytes) {
  void* p = nullptr;
  if (const cudaError_t error = cudaMallocHost(&p, bytes); error != cudaSuccess) {
    cudaGetLastError();
    return out_of_memory("pinned memory: expected {:.2f} GiB: {}", static_cast<double>(bytes) / 0x1p30,
                         cudaGetErrorString(error))
        .with_hint("the machine has too little free memory, or ulimit -l allows no more");
  }
  PinnedBuffer buffer;
  buffer.data_.reset(static_cast<std::byte*>(p));
  buffer.bytes_ = bytes;
  return buffer;
}

void PinnedBuffer::Free::operator()(std::byte* p) const {
  cudaFreeHost(p);
}

}  // namespace nibble
