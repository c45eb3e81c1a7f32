// Products with more than 64 rows of inputs on sm_90: weights are decoded into registers, straight into the A operand
// of warpgroup products; the inputs come by bulk copies from an image of shared memory that arrange() made of them. No
// copy of the weights in BF16 exists anywhere.
//
// A block makes 2 * kTiles * 64 rows of y^T for 128 rows of x: two warpgroups of kTiles * 64 rows of the weight each
// (of gate and of up, for SwiGLU), and a warp that feeds them.
#include "ops/linear/device_weight.cuh"
#include "ops/linear/fragment_source.cuh"
#include "ops/linear/linears_cuda.h"
#include "tensor/hopper.cuh"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kMaxOutputs = 4;
constexpr int kTokens = 128;  // rows of x per block
constexpr int kGroups = 2;    // warpgroups that multiply
constexpr int kMultipliers = kGroups * 128;
constexpr int kThreads = kMultipliers + 128;
constexpr int kStages = 4;
constexpr int kUnitBytes = kTokens * kUnitColumns * 2;
constexpr int kStageBytes = 2 * kUnitBytes;  // of a pair

struct Output {
  DeviceWeight weight;
  int first_block;
  void* y;
  bool y_is_bf16;
};
struct ManyRows {
  Output outputs[kMaxOutputs];
  int count;
  const uint8_t* image;  // [token tiles][units][128 rows][128 bytes]
  int T, pairs;
};

/// Where column k of a unit stands in a row of the image: lane 4g+c of step j multiplies the columns 16c+4j+{0,1,2,3}
/// at the positions 16j + {2c, 2c+1, 2c+8, 2c+9} (nvfp4_fragment.h).
__device__ constexpr int position_of(int k) {
  return k % 16 / 4 * 16 + k % 4 / 2 * 8 + k / 16 * 2 + k % 2;
}

/// x [T,columns] as the image, zeros behind its last row and column. A block per token tile and unit.
__global__ void __launch_bounds__(256) arrange(const __nv_bfloat16* x, int T, int columns, int units, uint8_t* image) {
  __shared__ alignas(16) uint8_t tile[kUnitBytes];
  const int unit = static_cast<int>(blockIdx.x), first = static_cast<int>(blockIdx.y) * kTokens;
  wait_for_predecessor();
  for (int i = threadIdx.x; i < kTokens * 8; i += 256) {
    const int row = i / 8, k = i % 8 * 8, column = unit * kUnitColumns + k;
    uint4 v{};
    if (first + row < T && column < columns) {
      v = *reinterpret_cast<const uint4*>(x + static_cast<int64_t>(first + row) * columns + column);
    }
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int position = position_of(k + 2 * w);
      *reinterpret_cast<uint32_t*>(tile + row * 128 + ((position / 8 ^ row % 8) * 16) + position % 8 * 2) = words[w];
    }
  }
  let_successor_start();
  __syncthreads();
  uint8_t* to = image + (static_cast<int64_t>(blockIdx.y) * units + unit) * kUnitBytes;
  for (int i = threadIdx.x; i < kUnitBytes / 16; i += 256) {
    reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(tile)[i];
  }
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct Shared {
  alignas(1024) uint8_t stages[kStages][kStageBytes];
  uint64_t full[kStages], empty[kStages];
};

__device__ void feed(const ManyRows& p, Shared& s) {
  const uint8_t* from = p.image + static_cast<int64_t>(blockIdx.x) * p.pairs * kStageBytes;
  for (int pair = 0; pair < p.pairs; ++pair) {
    const int stage = pair % kStages, round = pair / kStages;
    if (round > 0) hopper::barrier_wait(&s.empty[stage], (round - 1) & 1);
    hopper::barrier_expect(&s.full[stage], kStageBytes);
    hopper::bulk_copy(s.stages[stage], from + static_cast<int64_t>(pair) * kStageBytes, kStageBytes, &s.full[stage]);
  }
}

template <class Source, int kTiles>
__device__ void multiply(const ManyRows& p, const DeviceWeight& w, const int (&tiles)[kTiles], Shared& s, int lane,
                         float (&sums)[kTiles][64]) {
  constexpr int kChunks = 2 / Source::kUnits;  // of a pair
  const int chunks = (w.columns + Source::kUnits * kUnitColumns - 1) / (Source::kUnits * kUnitColumns);
  typename Source::Chunk next[kTiles];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) Source(w, tiles[m], lane).load(0, next[m]);

  uint32_t operands[2][kTiles][4];
  for (int pair = 0; pair < p.pairs; ++pair) {
    const int stage = pair % kStages;
#pragma unroll
    for (int part = 0; part < kChunks; ++part) {
      typename Source::Chunk now[kTiles];
      const int chunk = pair * kChunks + part;
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        now[m] = next[m];
        if (chunk + 1 < chunks) Source(w, tiles[m], lane).load(chunk + 1, next[m]);
      }
      if (part == 0) hopper::barrier_wait(&s.full[stage], pair / kStages & 1);
#pragma unroll
      for (int unit = 0; unit < Source::kUnits; ++unit) {
        typename Source::Scales scales[kTiles];
#pragma unroll
        for (int m = 0; m < kTiles; ++m) scales[m] = Source::unit_scales(now[m], unit);
        const uint8_t* inputs = s.stages[stage] + (part * Source::kUnits + unit) * kUnitBytes;
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          // The products of the step before last have read these registers.
          uint32_t(&a)[kTiles][4] = operands[step % 2];
#pragma unroll
          for (int m = 0; m < kTiles; ++m) Source::operand(now[m], unit, step, scales[m], a[m]);
          hopper::products_begin();
#pragma unroll
          for (int m = 0; m < kTiles; ++m) {
            hopper::multiply_64x128(sums[m], a[m], hopper::swizzled_rows(inputs + step * 32));
          }
          hopper::products_commit();
          hopper::products_wait<1>();
          // All of the pair before is done once a step of this one is alone.
          if (part == 0 && unit == 0 && step == 0 && pair > 0 && lane == 0) {
            hopper::barrier_arrive(&s.empty[(pair - 1) % kStages]);
          }
        }
      }
    }
  }
  hopper::products_wait<0>();
}

#endif

template <class Source, int kTiles, bool kSwiglu>
__global__ void __launch_bounds__(kThreads, 1) many_rows(const __grid_constant__ ManyRows p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t raw[];
  Shared& s = *reinterpret_cast<Shared*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = warp / 4;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::barrier_init(&s.full[i], 1);
      hopper::barrier_init(&s.empty[i], kGroups * 4);
    }
    hopper::barrier_fence();
  }
  __syncthreads();
  wait_for_predecessor();
  let_successor_start();

  int index = 0;
  if constexpr (!kSwiglu) {
    while (index + 1 < p.count && static_cast<int>(blockIdx.y) >= p.outputs[index + 1].first_block) ++index;
  }
  constexpr int kRows = (kSwiglu ? 1 : kGroups) * kTiles * 64;  // of y^T
  const Output& out = p.outputs[index];
  const int first_row = (static_cast<int>(blockIdx.y) - out.first_block) * kRows;
  const int first_token = static_cast<int>(blockIdx.x) * kTokens;
  if (group == kGroups) {
    hopper::give_registers<24>();
    if (threadIdx.x == kMultipliers) feed(p, s);
    return;
  }
  hopper::take_registers<240>();
  const DeviceWeight& w = kSwiglu ? p.outputs[group].weight : out.weight;
  const int last = static_cast<int>(tiles_of(w.rows)) - 1;
  int tiles[kTiles];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
    const int row = first_row + (kSwiglu ? 0 : group * kTiles * 64) + m * 64 + warp % 4 * 16;
    tiles[m] = min(row / kTileRows, last);
  }
  float sums[kTiles][64] = {};
  multiply<Source, kTiles>(p, w, tiles, s, lane, sums);

  constexpr int kPadded = kTokens + 1;
  // y is written along its rows: the tiles of both warpgroups turn in shared memory, which nobody reads any more.
  float* results = reinterpret_cast<float*>(s.stages);  // [64 rows of each warpgroup][kPadded]
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
    hopper::barrier_of<kMultipliers>();
    float* to = results + (group * 64 + warp % 4 * 16 + lane / 4) * kPadded + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      to[i * 8] = sums[m][i * 4];
      to[i * 8 + 1] = sums[m][i * 4 + 1];
      to[8 * kPadded + i * 8] = sums[m][i * 4 + 2];
      to[8 * kPadded + i * 8 + 1] = sums[m][i * 4 + 3];
    }
    hopper::barrier_of<kMultipliers>();
    constexpr int kTurned = kSwiglu ? 64 : kGroups * 64;
    for (int i = threadIdx.x; i < kTurned * kTokens; i += kMultipliers) {
      const int r = i % kTurned, t = i / kTurned;
      const int row = first_row + (r / 64) * kTiles * 64 + m * 64 + r % 64, token = first_token + t;
      if (row >= out.weight.rows || token >= p.T) continue;
      const auto finish = [&](const DeviceWeight& of, int from) {
        return results[from * kPadded + t] * (of.channel_scale == nullptr ? of.factor : of.channel_scale[row]);
      };
      float y = finish(out.weight, r);
      if constexpr (kSwiglu) y = y / (1.0f + __expf(-y)) * finish(p.outputs[1].weight, r + 64);
      const int64_t at = static_cast<int64_t>(token) * out.weight.rows + row;
      if (out.y_is_bf16) {
        static_cast<__nv_bfloat16*>(out.y)[at] = __float2bfloat16_rn(y);
      } else {
        static_cast<float*>(out.y)[at] = y;
      }
    }
  }
#endif
}

template <class Source, int kTiles, bool kSwiglu>
void launch_many(Context& cx, ManyRows& p) {
  constexpr int kRows = (kSwiglu ? 1 : kGroups) * kTiles * 64;
  int blocks = 0;
  for (int i = 0; i < (kSwiglu ? 1 : p.count); ++i) {
    p.outputs[i].first_block = blocks;
    blocks += (p.outputs[i].weight.rows + kRows - 1) / kRows;
  }
  const dim3 grid(static_cast<unsigned>((p.T + kTokens - 1) / kTokens), static_cast<unsigned>(blocks));
  launch(cx, "linears", many_rows<Source, kTiles, kSwiglu>, grid, dim3(kThreads), kStages * kStageBytes + 1024 + 128,
         p);
}

int multiprocessors(Device device) {
  int count = 0;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device.index);
  return count;
}

template <class Source, bool kSwiglu>
void choose_tiles(Context& cx, ManyRows& p) {
  int64_t blocks = 0;
  for (int i = 0; i < (kSwiglu ? 1 : p.count); ++i) blocks += (p.outputs[i].weight.rows + 255) / 256;
  if (kSwiglu) blocks *= 2;
  blocks *= (p.T + kTokens - 1) / kTokens;
  // Tall blocks read the inputs less often; low ones fill the GPU when there are few.
  if (blocks >= multiprocessors(cx.device)) return launch_many<Source, 2, kSwiglu>(cx, p);
  launch_many<Source, 1, kSwiglu>(cx, p);
}

template <bool kSwiglu>
void choose_format(Context& cx, ManyRows& p, WeightFormat format) {
  switch (format) {
    case WeightFormat::nvfp4:
      return choose_tiles<Nvfp4Source, kSwiglu>(cx, p);
    case WeightFormat::fp8:
      return choose_tiles<Fp8Source, kSwiglu>(cx, p);
    default:
      return choose_tiles<Bf16Source, kSwiglu>(cx, p);
  }
}

}  // namespace

size_t linears_scratch_bytes(int64_t T, int64_t largest_in, int64_t) {
  if (T <= kFewRows) return 0;
  return static_cast<size_t>((T + kTokens - 1) / kTokens * kTokens * pairs_of(largest_in) * kPairColumns * 2);
}

void many_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  const Arena::Scope scope(cx.arena);
  const int64_t T = x.dim(0), tiles = (T + kTokens - 1) / kTokens, pairs = pairs_of(x.dim(1));
  const Tensor image = cx.arena.take(DType::u8, {tiles, pairs * 2, kUnitBytes});
  launch(cx, "linears", arrange, dim3(static_cast<unsigned>(pairs * 2), static_cast<unsigned>(tiles)), dim3(256), 0,
         static_cast<const __nv_bfloat16*>(x.raw()), static_cast<int>(T), static_cast<int>(x.dim(1)),
         static_cast<int>(pairs * 2), image.u8());
  // A launch for each run of outputs of one format.
  for (size_t begin = 0; begin < outputs.size();) {
    ManyRows p{};
    p.image = image.u8();
    p.T = static_cast<int>(T);
    p.pairs = static_cast<int>(pairs);
    const WeightFormat format = outputs[begin].weight->format;
    size_t end = begin;
    for (; end < outputs.size() && outputs[end].weight->format == format; ++end) {
      const LinearOutput& o = outputs[end];
      p.outputs[p.count++] = {device_weight(*o.weight), 0, o.y.raw(), o.y.dtype() == DType::bf16};
    }
    if (swiglu) {
      choose_format<true>(cx, p, format);
    } else {
      choose_format<false>(cx, p, format);
    }
    begin = end;
  }
}

}  // namespace nibble::ops
