// How the lanes of a warp read 16 rows of a weight and make tensor-core operands of them, for each weight format.
//
// A source stands at a tile and counts chunks of columns from one of them. load() only loads, so that several chunks
// can be on their way; operand() gives the A fragment of one step (16 columns) of one unit. See nvfp4_fragment.h for
// which columns those are.
#pragma once

#include <cuda_bf16.h>

#include "ops/linear/nvfp4_fragment.h"

namespace nibble::ops {

/// A weight as kernels see it.
struct DeviceWeight {
  const uint8_t* data;         // nvfp4: packed codes; fp8, bf16: rows as stored
  const uint8_t* scales;       // nvfp4: packed scales
  const float* channel_scale;  // fp8, or null
  float factor;                // of the finished sums
  int rows, columns;
};

__device__ inline float swiglu_of(float gate, float up) {
  return gate / (1.0f + __expf(-gate)) * up;
}

__device__ inline uint4 load_once(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

__device__ inline uint32_t load_once_32(const void* p) {
  uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}

__device__ inline uint32_t multiply_bf16(uint32_t a, __nv_bfloat162 b) {
  const __nv_bfloat162 product = __hmul2(*reinterpret_cast<__nv_bfloat162*>(&a), b);
  return *reinterpret_cast<const uint32_t*>(&product);
}

struct Nvfp4Source {
  static constexpr int kUnits = 2;  // of a chunk
  struct Chunk {
    uint4 codes[2];
    uint32_t scales;
  };
  __device__ void seek(const DeviceWeight& w, int tile, int chunk, int lane) {
    const int64_t pair = tile * pairs_of(w.columns) + chunk;
    codes_ = w.data + pair * kPairCodeBytes + lane * 16;
    scales_ = w.scales + pair * kPairScaleBytes + lane * 4;
  }
  __device__ void load(int chunk, Chunk& out) const {
    out.codes[0] = load_once(codes_ + chunk * kPairCodeBytes);
    out.codes[1] = load_once(codes_ + chunk * kPairCodeBytes + 512);
    out.scales = load_once_32(scales_ + chunk * kPairScaleBytes);
  }
  using Scales = __nv_bfloat162;  // of rows g and g+8
  __device__ static Scales unit_scales(const Chunk& chunk, int unit) {
    const uint32_t both = scales_to_bf16(__byte_perm(chunk.scales, 0, unit == 0 ? 0x4140 : 0x4342));
    return *reinterpret_cast<const __nv_bfloat162*>(&both);
  }
  __device__ static void operand(const Chunk& chunk, int unit, int step, const Scales& scales, uint32_t (&a)[4]) {
    const uint4& c = chunk.codes[unit];
    codes_to_bf16(step == 0 ? c.x : step == 1 ? c.y : step == 2 ? c.z : c.w, a);
    // Multiplications choose a half by themselves.
    a[0] = multiply_bf16(a[0], __low2bfloat162(scales));
    a[1] = multiply_bf16(a[1], __high2bfloat162(scales));
    a[2] = multiply_bf16(a[2], __low2bfloat162(scales));
    a[3] = multiply_bf16(a[3], __high2bfloat162(scales));
  }

 private:
  const uint8_t *codes_, *scales_;
};

/// Rows g and g+8 of a tile, block c of each unit: where the last tile or unit ends early, zeros.
template <int kBytes>
struct RowPairs {
  __device__ void seek(const DeviceWeight& w, int tile, int unit, int lane) {
    const int row = tile * kTileRows + lane / 4, block = lane % 4 * 16 + unit * kUnitColumns;
    at_ = w.data + (static_cast<int64_t>(row) * w.columns + block) * kBytes;
    below_ = 8LL * w.columns * kBytes;
    low_ = row < w.rows;
    high_ = row + 8 < w.rows;
    left_ = w.columns - block;
  }
  /// Asks for what load() will read, as far as the L2 cache.
  __device__ void ask(int unit) const {
    if (left_ <= unit * kUnitColumns) return;
    const uint8_t* at = at_ + unit * kUnitColumns * kBytes;
    if (low_) asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
    if (high_) asm volatile("prefetch.global.L2 [%0];" ::"l"(at + below_));
  }
  __device__ void load(int unit, uint4* low, uint4* high) const {
    const bool inside = left_ > unit * kUnitColumns;
    const uint8_t* at = at_ + unit * kUnitColumns * kBytes;
#pragma unroll
    for (int i = 0; i < kBytes; ++i) {
      low[i] = inside && low_ ? load_once(at + 16 * i) : uint4{};
      high[i] = inside && high_ ? load_once(at + below_ + 16 * i) : uint4{};
    }
  }

 private:
  const uint8_t* at_;
  int64_t below_;
  int left_;
  bool low_, high_;
};

struct Bf16Source {
  static constexpr int kUnits = 1;
  struct Chunk {
    uint4 low[2], high[2];
  };
  __device__ void seek(const DeviceWeight& w, int tile, int chunk, int lane) { rows_.seek(w, tile, chunk, lane); }
  __device__ void ask(int chunk) const { rows_.ask(chunk); }
  __device__ void load(int chunk, Chunk& out) const { rows_.load(chunk, out.low, out.high); }
  struct Scales {};
  __device__ static Scales unit_scales(const Chunk&, int) { return {}; }
  __device__ static void operand(const Chunk& chunk, int, int step, const Scales&, uint32_t (&a)[4]) {
    const uint4 &low = chunk.low[step / 2], &high = chunk.high[step / 2];
    a[0] = step % 2 == 0 ? low.x : low.z;
    a[1] = step % 2 == 0 ? high.x : high.z;
    a[2] = step % 2 == 0 ? low.y : low.w;
    a[3] = step % 2 == 0 ? high.y : high.w;
  }

 private:
  RowPairs<2> rows_;
};

struct Fp8Source {
  static constexpr int kUnits = 1;
  struct Chunk {
    uint4 low, high;
  };
  __device__ void seek(const DeviceWeight& w, int tile, int chunk, int lane) { rows_.seek(w, tile, chunk, lane); }
  __device__ void ask(int chunk) const { rows_.ask(chunk); }
  __device__ void load(int chunk, Chunk& out) const { rows_.load(chunk, &out.low, &out.high); }
  struct Scales {};
  __device__ static Scales unit_scales(const Chunk&, int) { return {}; }
  // E4M3's fields moved to those of BF16 are 2^-120 of the number, subnormals too.
  __device__ static uint32_t widen(uint32_t bytes, uint32_t selector) {
    const uint32_t high = __byte_perm(bytes, 0, selector);
    return multiply_bf16((high & 0x80008000) | (high >> 4 & 0x07F007F0), __float2bfloat162_rn(0x1p120f));
  }
  __device__ static void operand(const Chunk& chunk, int, int step, const Scales&, uint32_t (&a)[4]) {
    const uint4 &l = chunk.low, &h = chunk.high;
    const uint32_t low = step == 0 ? l.x : step == 1 ? l.y : step == 2 ? l.z : l.w;
    const uint32_t high = step == 0 ? h.x : step == 1 ? h.y : step == 2 ? h.z : h.w;
    a[0] = widen(low, 0x1404);
    a[1] = widen(high, 0x1404);
    a[2] = widen(low, 0x3424);
    a[3] = widen(high, 0x3424);
  }

 private:
  RowPairs<1> rows_;
};

}  // namespace nibble::ops
