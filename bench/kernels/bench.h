// What the benches of single ops share: random operands on the GPU and the time of one call out of many.
#pragma once

#include <functional>

#include "tensor/context.h"

namespace nibble::bench {

/// One op at the sizes that matter; prints a line for each.
void delta_mixer(Context& cx);

/// Memory of the GPU for the life of the program.
class Operands {
 public:
  explicit Operands(Stream& stream) : stream_(stream) {}
  Tensor zeros(DType dtype, const Shape& shape);
  /// Normal numbers times `scale`; every tensor repeats the same 4M of them from another place on.
  Tensor normal(DType dtype, const Shape& shape, float scale = 1);
  Tensor ints(const std::vector<int32_t>& values);

 private:
  Stream& stream_;
  std::vector<Buffer> buffers_;
  std::vector<float> numbers_;
  size_t next_ = 0;
};

/// Microseconds of one of the `calls` that `work` queues, replayed from a graph: the median of some replays.
double time_us(Stream& stream, int calls, const std::function<void()>& work);

/// "name  shape  us  GB/s  TFLOP/s"; bytes that must move and operations that must be done.
void print(const char* op, const std::string& shape, double us, double bytes, double flops);

}  // namespace nibble::bench
