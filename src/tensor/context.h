// Context: what every op needs beside its operands. One per engine loop or per worker; not shared between threads.
#pragma once

#include "base/cancel.h"
#include "base/thread_pool.h"
#include "tensor/arena.h"
#include "tensor/stream.h"

namespace nibble {

/// exact: activations stay f32 (calibrate, train, eval, goldens).
/// bf16_act: activations are rounded to BF16 before a product, sums stay f32 (serve and chat).
enum class Numeric : uint8_t { exact, bf16_act };

constexpr const char* name(Numeric numeric) {
  return numeric == Numeric::exact ? "exact" : "bf16_act";
}

struct Context {
  explicit Context(ThreadPool& pool, Numeric numeric = Numeric::exact) : pool(pool), numeric(numeric) {}
  /// Of a GPU: ops queue their kernels on `stream`, which outlives the context.
  Context(ThreadPool& pool, Numeric numeric, Stream& stream)
      : pool(pool), arena(stream.device()), numeric(numeric), device(stream.device()), stream(&stream) {}

  ThreadPool& pool;
  Arena arena;
  Numeric numeric;
  Device device;
  Stream* stream = nullptr;  // null on a CPU, where an op is done when it returns
  CancelToken cancel;        // read between blocks of a forward
};

}  // namespace nibble
