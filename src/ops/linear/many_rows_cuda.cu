// Products with more than 64 rows of inputs on sm_90 (of NVFP4 weights more than 128): weights are decoded into
// registers, straight into the A operand of warpgroup products; the inputs come by bulk copies from an image of shared
// memory that arrange_inputs() made of them. No copy of the weights in BF16 exists anywhere.
//
// A block makes 2 * kTiles * 64 rows of y^T for 128 rows of x: two warpgroups of kTiles * 64 rows of the weight each,
// and a warp that feeds them. For SwiGLU the tiles of a warpgroup are the same 64 rows of gate and of up.
#include <algorithm>

#include "ops/linear/device_weight.cuh"
#include "ops/linear/fragment_source.cuh"
#include "ops/linear/input_image.cuh"
#include "ops/linear/linears_cuda.h"
#include "tensor/hopper.cuh"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kMaxOutputs = 4;
constexpr int kTokens = 128;  // rows of x per block
constexpr int kGroups = 2;    // warpgroups that multiply
static_assert(kTokens == image_tile(kFewRows + 1));
constexpr int kMultipliers = kGroups * 128;
constexpr int kThreads = kMultipliers + 128;
constexpr int kStages = 4;
constexpr int kUnitBytes = kTokens * kUnitColumns * 2;
constexpr int kStageBytes = 2 * kUnitBytes;  // of a pair

struct Output {
  DeviceWeight weight;
  int first_block;
  void* y;
  bool y_is_f32;
};
struct ManyRows {
  Output outputs[kMaxOutputs];
  int count;
  const uint8_t* image;  // [token tiles][units][128 rows][128 bytes]
  uint4* y_image;        // the same for the y of SwiGLU, or null
  int T, pairs, items;
};

/// The shared memory of a block: that of sm_90's Shared, which other architectures do not have.
constexpr size_t shared_bytes(int rows) {
  return kStages * kStageBytes + static_cast<size_t>(kTokens * (rows + 8) * 2) + 2 * kStages * 8 + 1024 + 1024;
}
/// Rows of y^T that a block makes.
template <int kTiles, bool kSwiglu>
constexpr int kBlockRows = kGroups * 64 * (kSwiglu ? kTiles / 2 : kTiles);

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// A block's piece of work: kRows rows of an output for one tile of tokens. Blocks go from item to item; the tiles of
/// tokens change fastest, so that blocks that run together share weights.
template <int kTiles, bool kSwiglu>
struct Item {
  static constexpr int kRows = kBlockRows<kTiles, kSwiglu>;
  const Output* out;
  int first_row, token_tile;

  __device__ Item(const ManyRows& p, int index) {
    const int tokens = (p.T + kTokens - 1) / kTokens, block = index / tokens;
    token_tile = index % tokens;
    out = p.outputs;
    if constexpr (!kSwiglu) {
      while (out + 1 < p.outputs + p.count && block >= out[1].first_block) ++out;
    }
    first_row = (block - out->first_block) * kRows;
  }
  /// The weight of a warpgroup's tile m, and its first row there.
  __device__ const DeviceWeight& weight(int m) const { return out[kSwiglu ? m : 0].weight; }
  __device__ int row(int group, int m) const { return first_row + (kSwiglu ? group : group * kTiles + m) * 64; }
};

template <int kTiles, bool kSwiglu>
struct Shared {
  static constexpr int kPitch = Item<kTiles, kSwiglu>::kRows + 8;  // of `turned`: rows 16 bytes apart modulo 128
  alignas(1024) uint8_t stages[kStages][kStageBytes];
  alignas(16) __nv_bfloat16 turned[kTokens][kPitch];  // y on its way out
  uint64_t full[kStages], empty[kStages];
};

template <class Shared>
__device__ void feed(const ManyRows& p, Shared& s) {
  int count = 0;
  const int tokens = (p.T + kTokens - 1) / kTokens;
  for (int index = static_cast<int>(blockIdx.x); index < p.items; index += static_cast<int>(gridDim.x)) {
    const uint8_t* from = p.image + static_cast<int64_t>(index % tokens) * p.pairs * kStageBytes;
    for (int pair = 0; pair < p.pairs; ++pair, ++count) {
      const int stage = count % kStages, round = count / kStages;
      if (round > 0) hopper::barrier_wait(&s.empty[stage], (round - 1) & 1);
      hopper::barrier_expect(&s.full[stage], kStageBytes);
      hopper::bulk_copy(s.stages[stage], from + static_cast<int64_t>(pair) * kStageBytes, kStageBytes, &s.full[stage]);
    }
  }
}

/// sums = the products of a warpgroup's tiles with one tile of tokens; `next` holds the first chunk on entry. `count`
/// counts the pairs that went through the stages.
template <class Source, int kTiles, class Shared>
__device__ void multiply(const ManyRows& p, const Source (&sources)[kTiles], int chunks,
                         typename Source::Chunk (&next)[kTiles], Shared& s, int lane, int& count,
                         float (&sums)[kTiles][64]) {
  constexpr int kChunks = 2 / Source::kUnits;  // of a pair
  uint32_t operands[2][kTiles][4];
  for (int pair = 0; pair < p.pairs; ++pair, ++count) {
    const int stage = count % kStages;
#pragma unroll
    for (int part = 0; part < kChunks; ++part) {
      typename Source::Chunk now[kTiles];
      const int chunk = pair * kChunks + part;
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        now[m] = next[m];
        if (chunk + 1 < chunks) sources[m].load(chunk + 1, next[m]);
      }
      if (part == 0) hopper::barrier_wait(&s.full[stage], count / kStages & 1);
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
            hopper::multiply(sums[m], a[m], hopper::swizzled_rows(inputs + step * 32));
          }
          hopper::products_commit();
          hopper::products_wait<1>();
          // All of the pair before is done once a step of this one is alone.
          if (part == 0 && unit == 0 && step == 0 && pair > 0 && lane == 0) {
            hopper::barrier_arrive(&s.empty[(count - 1) % kStages]);
          }
        }
      }
    }
  }
  hopper::products_wait<0>();
  if (lane == 0) hopper::barrier_arrive(&s.empty[(count - 1) % kStages]);
}

/// 64 rows of y^T, of which this warp has 16, to their place in `turned`, as BF16.
template <class Shared>
__device__ void turn(const float (&y)[64], int row, int lane, Shared& s) {
  const int matrix = lane / 8, token = matrix / 2 * 8 + lane % 8;
#pragma unroll
  for (int i = 0; i < 16; i += 2) {
    uint32_t part[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) part[q] = pack_bf16(y[i * 4 + q * 2], y[i * 4 + q * 2 + 1]);
    hopper::store_matrices_turned(&s.turned[i * 8 + token][row + matrix % 2 * 8], part);
  }
}

/// `turned` to memory, 16 bytes at a time where the rows of y allow.
template <int kRows, class Shared>
__device__ void write(const ManyRows& p, const Output& out, int first_row, int first_token, const Shared& s) {
  auto* y = static_cast<__nv_bfloat16*>(out.y);
  const int rows = out.weight.rows;
  for (int i = threadIdx.x; i < kTokens * (kRows / 8); i += kMultipliers) {
    const int t = i / (kRows / 8), r = i % (kRows / 8) * 8, row = first_row + r;
    if (first_token + t >= p.T || row >= rows) continue;
    const int64_t at = static_cast<int64_t>(first_token + t) * rows + row;
    if (rows % 8 == 0) {
      *reinterpret_cast<uint4*>(y + at) = *reinterpret_cast<const uint4*>(&s.turned[t][r]);
    } else {
      for (int k = 0; k < 8 && row + k < rows; ++k) y[at + k] = s.turned[t][r + k];
    }
  }
}

/// `turned` to the image of y, whose rows are whole pairs of units.
template <int kRows, class Shared>
__device__ void write_image(const ManyRows& p, int rows, int first_row, int token_tile, const Shared& s) {
  static_assert(kRows % kUnitColumns == 0);
  const int units = rows / kUnitColumns;
  uint4* const to =
      p.y_image + (static_cast<int64_t>(token_tile) * units + first_row / kUnitColumns) * (kTokens * kRowPieces);
  for (int i = threadIdx.x; i < kTokens * (kRows / 8); i += kMultipliers) {
    const int unit = i / (kTokens * kRowPieces), row = i / kRowPieces % kTokens, q = i % kRowPieces;
    to[unit * (kTokens * kRowPieces) + image_place(row, q)] =
        image_piece(&s.turned[row][unit * kUnitColumns], kUnitColumns, q);
  }
}

/// f32 results straight from their registers: only for small outputs.
__device__ inline void write_f32(const ManyRows& p, const Output& out, const float (&y)[64], int row, int first_token,
                                 int lane) {
  auto* to = static_cast<float*>(out.y);
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    const int r = row + lane / 4 + i % 4 / 2 * 8, t = first_token + i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (r < out.weight.rows && t < p.T) to[static_cast<int64_t>(t) * out.weight.rows + r] = y[i];
  }
}

/// y *= the factors of its two rows.
__device__ inline void finish(const DeviceWeight& w, int row, float (&y)[64]) {
  const auto factor = [&](int r) {
    return w.channel_scale == nullptr ? w.factor : r < w.rows ? w.channel_scale[r] : 0.0f;
  };
  const float low = factor(row), high = factor(row + 8);
#pragma unroll
  for (int i = 0; i < 64; ++i) y[i] *= i % 4 < 2 ? low : high;
}

template <class Source, int kTiles, bool kSwiglu>
__device__ void run(const ManyRows& p, Shared<kTiles, kSwiglu>& s) {
  using Work = Item<kTiles, kSwiglu>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = warp / 4;
  const int own_row = warp % 4 * 16;
  typename Source::Chunk next[kTiles];
  Source sources[kTiles];
  const auto seek = [&](int index) {
    if (index >= p.items) return;
    const Work work(p, index);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const DeviceWeight& w = work.weight(m);
      const int tile = (work.row(group, m) + own_row) / kTileRows;
      sources[m].seek(w, min(tile, static_cast<int>(tiles_of(w.rows)) - 1), 0, lane);
      sources[m].load(0, next[m]);
    }
  };
  const int columns = p.outputs[0].weight.columns, chunk_columns = Source::kUnits * kUnitColumns;
  const int chunks = (columns + chunk_columns - 1) / chunk_columns;
  int count = 0;
  seek(static_cast<int>(blockIdx.x));
  wait_for_predecessor();
  let_successor_start();
  for (int index = static_cast<int>(blockIdx.x); index < p.items; index += static_cast<int>(gridDim.x)) {
    const Work work(p, index);
    const int first_token = work.token_tile * kTokens;
    float sums[kTiles][64] = {};
    multiply<Source, kTiles>(p, sources, chunks, next, s, lane, count, sums);
    seek(index + static_cast<int>(gridDim.x));

#pragma unroll
    for (int m = 0; m < kTiles; ++m) finish(work.weight(m), work.row(group, m) + own_row + lane / 4, sums[m]);
    if constexpr (kSwiglu) {
#pragma unroll
      for (int i = 0; i < 64; ++i) sums[0][i] = swiglu_of(sums[0][i], sums[1][i]);
    }
    hopper::barrier_of<kMultipliers>();  // the results before have left
#pragma unroll
    for (int m = 0; m < (kSwiglu ? 1 : kTiles); ++m) {
      const int row = work.row(group, m) + own_row;
      if (work.out->y_is_f32) {
        write_f32(p, *work.out, sums[m], row, first_token, lane);
      } else {
        turn(sums[m], row - work.first_row, lane, s);
      }
    }
    hopper::barrier_of<kMultipliers>();
    if constexpr (kSwiglu) {
      if (p.y_image != nullptr) {
        write_image<Work::kRows>(p, work.out->weight.rows, work.first_row, work.token_tile, s);
        continue;
      }
    }
    if (!work.out->y_is_f32) write<Work::kRows>(p, *work.out, work.first_row, first_token, s);
  }
}

#endif

template <class Source, int kTiles, bool kSwiglu>
__global__ void __launch_bounds__(kThreads, 1) many_rows(const __grid_constant__ ManyRows p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t raw[];
  auto& s = *reinterpret_cast<Shared<kTiles, kSwiglu>*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::barrier_init(&s.full[i], 1);
      hopper::barrier_init(&s.empty[i], kGroups * 4);
    }
    hopper::barrier_fence();
  }
  __syncthreads();
  static_assert(sizeof(s) + 1024 <= shared_bytes(kBlockRows<kTiles, kSwiglu>));
  if (threadIdx.x >= kMultipliers) {
    hopper::give_registers<24>();
    if (threadIdx.x == kMultipliers) {
      wait_for_predecessor();
      feed(p, s);
    }
  } else {
    hopper::take_registers<240>();
    run<Source, kTiles, kSwiglu>(p, s);
  }
#endif
}

template <class Source, int kTiles, bool kSwiglu>
void launch_many(Context& cx, ManyRows& p) {
  constexpr int kRows = kBlockRows<kTiles, kSwiglu>;
  int blocks = 0;
  for (int i = 0; i < (kSwiglu ? 1 : p.count); ++i) {
    p.outputs[i].first_block = blocks;
    blocks += (p.outputs[i].weight.rows + kRows - 1) / kRows;
  }
  p.items = blocks * ((p.T + kTokens - 1) / kTokens);
  const int most = multiprocessors(cx.device), turns = (p.items + most - 1) / most;
  launch(cx, "linears", many_rows<Source, kTiles, kSwiglu>, dim3(static_cast<unsigned>((p.items + turns - 1) / turns)),
         dim3(kThreads), shared_bytes(kRows), p);
}

template <class Source>
void choose_tiles(Context& cx, ManyRows& p, bool swiglu) {
  if (swiglu) return launch_many<Source, 2, true>(cx, p);
  int64_t blocks = 0;
  for (int i = 0; i < p.count; ++i) blocks += (p.outputs[i].weight.rows + 255) / 256;
  // Tall blocks read the inputs less often; low ones fill the GPU when there are few.
  if (blocks * ((p.T + kTokens - 1) / kTokens) >= multiprocessors(cx.device)) {
    launch_many<Source, 2, false>(cx, p);
  } else {
    launch_many<Source, 1, false>(cx, p);
  }
}

}  // namespace

void many_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  const Arena::Scope scope(cx.arena);
  const Tensor image = image_of(cx, x);
  // A launch for each run of outputs of one format.
  for (size_t begin = 0, end = 0; begin < outputs.size(); begin = end) {
    ManyRows p{};
    p.image = image.u8();
    if (swiglu && outputs[0].y.dtype() == DType::u8) p.y_image = static_cast<uint4*>(outputs[0].y.raw());
    p.T = static_cast<int>(x.dim(0));
    p.pairs = static_cast<int>(pairs_of(outputs[begin].weight->in));
    const WeightFormat format = outputs[begin].weight->format;
    for (end = begin; end < outputs.size() && outputs[end].weight->format == format; ++end) {
      const LinearOutput& o = outputs[end];
      p.outputs[p.count++] = {device_weight(*o.weight), 0, o.y.raw(), o.y.dtype() == DType::f32};
    }
    switch (format) {
      case WeightFormat::nvfp4:
        choose_tiles<Nvfp4Source>(cx, p, swiglu);
        break;
      case WeightFormat::fp8:
        choose_tiles<Fp8Source>(cx, p, swiglu);
        break;
      default:
        choose_tiles<Bf16Source>(cx, p, swiglu);
    }
  }
}

}  // namespace nibble::ops
