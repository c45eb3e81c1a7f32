// Products with up to 64 rows of inputs: every weight is read once, as the A operand of 16x8x16 products whose columns
// are rows of x. Eight warps share the 16 (or more) rows of an item, each a slice of its columns; their sums meet in
// shared memory in the order of the slices. Neither the slices nor any order of addition depends on T.
//
// Blocks stay and go from item to item, so that the weights of the next are on their way while one is finished. What
// bounds these products is the number of instructions per weight: where inputs fit in shared memory, NVFP4 weights come
// there too, by copies that no register waits for (run_packed).
#include <algorithm>

#include "ops/linear/device_weight.cuh"
#include "ops/linear/few_rows.cuh"
#include "ops/linear/linears_cuda.h"

namespace nibble::ops {
namespace {

constexpr int kWarps = kSlices;
constexpr int kMaxOutputs = 4;

struct Output {
  DeviceWeight weight;
  int first_item;  // items before this output's, of its format
  void* y;
  bool y_is_bf16;
};
/// The outputs of one weight format; its blocks begin at first_block.
struct Group {
  WeightFormat format;
  int first_output, outputs, items, first_block, blocks;
};
struct FewRows {
  Output outputs[kMaxOutputs];
  Group groups[kMaxOutputs];
  int group_count;
  const __nv_bfloat16* x;  // [T,columns]
  int T;
};

__device__ void store(const Output& out, int64_t index, float value) {
  if (out.y_is_bf16) {
    static_cast<__nv_bfloat16*>(out.y)[index] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(out.y)[index] = value;
  }
}

template <int kTiles, int kColumns, bool kSwiglu>
struct Item {
  static constexpr int kOwn = kSwiglu ? kTiles / 2 : kTiles;  // tiles of one weight

  const Output* out;
  int first_tile;

  __device__ Item(const FewRows& p, const Group& group, int index) {
    out = &p.outputs[group.first_output];
    if constexpr (!kSwiglu) {
      const Output* last = out + group.outputs - 1;
      while (out < last && index >= out[1].first_item) ++out;
    }
    first_tile = (index - out->first_item) * kOwn;
  }
  __device__ const DeviceWeight& weight(int r) const { return out[kSwiglu && r >= kOwn ? 1 : 0].weight; }
  /// A last group of tiles may reach beyond the weight: such a tile repeats the last one and is not stored.
  __device__ int tile(int r) const {
    return min(first_tile + r % kOwn, static_cast<int>(tiles_of(out->weight.rows)) - 1);
  }
};

/// The sums of all slices of an item, as they come from the registers of their warps. With two sets the warps that are
/// done finish an item while others already write the next; with one they wait for each other.
template <int kTiles, int kColumns>
struct Slices {
  static constexpr int kSets = kTiles * kColumns <= 4 ? 2 : 1;
  static constexpr int kOctets = kSets == 2 ? kColumns : 1;  // of columns of x that are there at a time
  float4 sums[kSets][kOctets][kWarps][kTiles][32];
};

/// The slices of an item meet and become rows of y.
template <int kTiles, int kColumns, bool kSwiglu>
__device__ void finish_item(const FewRows& p, const Item<kTiles, kColumns, kSwiglu>& work, int turn,
                            const float (&sums)[kTiles][kColumns][4], Slices<kTiles, kColumns>& slices) {
  using Work = Item<kTiles, kColumns, kSwiglu>;
  using Sets = Slices<kTiles, kColumns>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto& set = slices.sums[turn % Sets::kSets];
#pragma unroll
  for (int first = 0; first < kColumns; first += Sets::kOctets) {
    if (Sets::kSets == 1) __syncthreads();
#pragma unroll
    for (int n = 0; n < Sets::kOctets; ++n) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        const float(&sum)[4] = sums[r][first + n];
        set[n][warp][r][lane] = {sum[0], sum[1], sum[2], sum[3]};
      }
    }
    __syncthreads();
    // Neighbouring threads finish neighbouring rows of the weight, which are neighbours in y.
    for (int i = threadIdx.x; i < Sets::kOctets * Work::kOwn * 128; i += kWarps * 32) {
      const int row = i % 16, column = i / 16 % 8, r = i / 128 % Work::kOwn, n = i / (128 * Work::kOwn);
      const int from = (row % 8) * 4 + column / 2, part = row / 8 * 2 + column % 2;
      const int n_out = (work.first_tile + r) * kTileRows + row, t = (first + n) * 8 + column;
      if (t >= p.T || n_out >= work.out->weight.rows) continue;
      const auto total = [&](int tile) {
        return tree_sum([&](int w) { return reinterpret_cast<const float*>(&set[n][w][tile][from])[part]; });
      };
      float y = scaled(work.out->weight, n_out, total(r));
      if constexpr (kSwiglu) y = swiglu_of(y, scaled(work.out[1].weight, n_out, total(r + Work::kOwn)));
      store(*work.out, static_cast<int64_t>(t) * work.out->weight.rows + n_out, y);
    }
  }
}

/// A warp copies the columns of its chunks, which no other warp reads, to shared memory, for all rows of x.
__device__ void copy_inputs(const FewRows& p, int columns, int chunk_columns, int own, int warp, int lane,
                            __nv_bfloat16* to) {
  const int pieces = chunk_columns / 8;  // of a chunk, 16 bytes each
  for (int t = 0; t < p.T; ++t) {
#pragma unroll 2
    for (int i = lane; i < own * pieces; i += 32) {
      const int column = (i / pieces * kWarps + warp) * chunk_columns + i % pieces * 8;
      uint4 x{};
      if (column < columns) x = *reinterpret_cast<const uint4*>(p.x + static_cast<int64_t>(t) * columns + column);
      *reinterpret_cast<uint4*>(to + t * shared_pitch(columns) + column) = x;
    }
  }
  __syncwarp();
}

constexpr int kPieceBytes = kPairCodeBytes + kPairScaleBytes;  // an NVFP4 chunk of a tile
/// Of chunks that are on their way in shared memory.
template <int kTiles, int kRing>
constexpr size_t ring_bytes() {
  return kRing > 0 ? size_t{kWarps} * kRing * kTiles * kPieceBytes : 0;
}

/// NVFP4 weights by way of shared memory: kRing chunks of each tile before the products, across the borders of items. A
/// lane asks for the bytes that it will read itself, so nothing waits for another lane.
template <int kTiles, bool kSwiglu, int kRing>
__device__ void run_packed(const FewRows& p, const Group& group, uint8_t* ring, __nv_bfloat16* inputs,
                           Slices<kTiles, 1>& slices) {
  using Work = Item<kTiles, 1, kSwiglu>;
  constexpr int kSlotBytes = kTiles * kPieceBytes, kLast = (kRing - 1) * kSlotBytes;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, columns = p.outputs[0].weight.columns;
  const int pairs = static_cast<int>(pairs_of(columns)), own = (pairs - warp + kWarps - 1) / kWarps;
  uint8_t* const slots = ring + warp * (kRing * kSlotBytes) + lane * 16;
  const int scales_at = kPairCodeBytes - lane * 12;  // of a lane's four, from where its codes are

  const uint8_t *codes[kTiles], *scales[kTiles];
  int asked = static_cast<int>(blockIdx.x) - group.first_block, left = own, place = 0;
  const auto seek = [&] {
    if (asked >= group.items) return;
    const Work work(p, group, asked);
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const int64_t pair = static_cast<int64_t>(work.tile(r)) * pairs + warp;
      codes[r] = work.weight(r).data + pair * kPairCodeBytes + lane * 16;
      scales[r] = work.weight(r).scales + pair * kPairScaleBytes + lane * 4;
    }
  };
  const auto ask = [&] {
    if (asked < group.items && own > 0) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(slots + place + r * kPieceBytes));
        asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(to), "l"(codes[r]) : "memory");
        asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(to + 512), "l"(codes[r] + 512)
                     : "memory");
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to + scales_at), "l"(scales[r]) : "memory");
        codes[r] += kWarps * kPairCodeBytes;
        scales[r] += kWarps * kPairScaleBytes;
      }
      if (--left == 0) {
        left = own;
        asked += group.blocks;
        seek();
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
    place = place == kLast ? 0 : place + kSlotBytes;
  };
  seek();
#pragma unroll 1
  for (int d = 0; d < kRing; ++d) ask();
  wait_for_predecessor();
  let_successor_start();

  copy_inputs(p, columns, kPairColumns, own, warp, lane, inputs);
  // Columns of the product behind the last row of x repeat it, and nobody looks at them.
  const __nv_bfloat16* const x =
      inputs + min(lane / 4, p.T - 1) * shared_pitch(columns) + warp * kPairColumns + lane % 4 * 16;
  int turn = 0;
  for (int index = static_cast<int>(blockIdx.x) - group.first_block; index < group.items; index += group.blocks) {
    float sums[kTiles][1][4] = {};
    const __nv_bfloat16* at = x;
#pragma unroll 1
    for (int c = 0; c < own; ++c, at += kWarps * kPairColumns) {
      asm volatile("cp.async.wait_group %0;" ::"n"(kRing - 1) : "memory");
      Nvfp4Source::Chunk chunk[kTiles];
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        const uint8_t* const from = slots + place + r * kPieceBytes;
        chunk[r] = {{*reinterpret_cast<const uint4*>(from), *reinterpret_cast<const uint4*>(from + 512)},
                    *reinterpret_cast<const uint32_t*>(from + scales_at)};
      }
      constexpr int kAll = 1 << 30;  // columns and rows are there, if only as zeros
      multiply<Nvfp4Source>(chunk, at, kAll, 0, kAll, sums);
      ask();
    }
    finish_item(p, Work(p, group, index), turn++, sums, slices);
  }
}

template <class Source, int kTiles, int kColumns, bool kSwiglu, int kAhead, bool kShared>
__device__ void run(const FewRows& p, const Group& group, __nv_bfloat16* inputs, Slices<kTiles, kColumns>& slices) {
  using Work = Item<kTiles, kColumns, kSwiglu>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4;
  constexpr int kStep = kWarps * kChunkColumns<Source>;  // columns between two chunks of a slice
  const int columns = p.outputs[0].weight.columns;
  const int chunks = (columns + kChunkColumns<Source> - 1) / kChunkColumns<Source>;
  const int own = (chunks - warp + kWarps - 1) / kWarps;

  // Loads run kAhead chunks before the products, across the borders of items: chunk c of a slice lies in ahead[c %
  // kAhead]. Weights do not depend on what ran before.
  typename Source::Chunk ahead[kAhead][kTiles];
  Source here[kTiles], next[kTiles];
  const auto seek = [&](Source(&sources)[kTiles], int index) {
    if (index >= group.items) return;
    const Work work(p, group, index);
#pragma unroll
    for (int r = 0; r < kTiles; ++r) sources[r].seek(work.weight(r), work.tile(r), warp, lane);
  };
  int index = static_cast<int>(blockIdx.x) - group.first_block;
  seek(here, index);
#pragma unroll
  for (int d = 0; d < kAhead; ++d) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      if (d < own) here[r].load(d * kWarps, ahead[d][r]);
    }
  }
  wait_for_predecessor();
  let_successor_start();

  // Read once per item: from shared memory where they fit there, or every chunk would wait for the L2 cache.
  if constexpr (kShared) {
    copy_inputs(p, columns, kChunkColumns<Source>, own, warp, lane, inputs);
  }
  const int pitch = kShared ? shared_pitch(columns) : columns,
            first_column = warp * kChunkColumns<Source> + lane % 4 * 16;
  const __nv_bfloat16* x = (kShared ? inputs : p.x) + static_cast<int64_t>(g) * pitch + first_column;
  int turn = 0;
  for (; index < group.items; index += group.blocks) {
    const bool more = index + group.blocks < group.items;
    seek(next, index + group.blocks);
    float sums[kTiles][kColumns][4] = {};
    for (int base = 0; base < own; base += kAhead) {
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
        const int chunk = base + d, at = chunk * kStep;
        if (chunk >= own) break;
        multiply<Source>(ahead[d], x + at, columns - first_column - at, pitch, p.T - g, sums);
        const bool inside = chunk + kAhead < own;
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
          if (inside) {
            here[r].load((chunk + kAhead) * kWarps, ahead[d][r]);
          } else if (more) {
            next[r].load(d * kWarps, ahead[d][r]);
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kTiles; ++r) here[r] = next[r];

    finish_item(p, Work(p, group, index), turn++, sums, slices);
  }
}

/// Of the inputs in shared memory.
__host__ __device__ constexpr size_t input_bytes(int T, int columns) {
  return (static_cast<size_t>(T) * shared_pitch(columns) * 2 + 127) / 128 * 128;
}

/// kRing >= 0: the inputs are in shared memory, and so are kRing chunks of NVFP4 weights.
template <int kTiles, int kColumns, bool kSwiglu, int kAhead, int kBlocks, int kRing>
__global__ void __launch_bounds__(kWarps * 32, kBlocks) few_rows(const __grid_constant__ FewRows p) {
  extern __shared__ __align__(128) uint8_t dynamic[];
  __shared__ Slices<kTiles, kColumns> slices;
  int index = 0;
  while (index + 1 < p.group_count && static_cast<int>(blockIdx.x) >= p.groups[index + 1].first_block) ++index;
  const Group& group = p.groups[index];
  constexpr bool kShared = kRing >= 0;
  auto* inputs = reinterpret_cast<__nv_bfloat16*>(dynamic + ring_bytes<kTiles, kRing>());
  constexpr int kRowsAhead = kAhead > 1 ? kAhead / 2 : 1;  // a chunk of rows takes more registers than a packed one
  switch (group.format) {
    case WeightFormat::nvfp4:
      if constexpr (kRing > 0) return run_packed<kTiles, kSwiglu, kRing>(p, group, dynamic, inputs, slices);
      return run<Nvfp4Source, kTiles, kColumns, kSwiglu, kAhead, kShared>(p, group, inputs, slices);
    case WeightFormat::fp8:
      return run<Fp8Source, kTiles, kColumns, kSwiglu, kRowsAhead, kShared>(p, group, inputs, slices);
    default:
      return run<Bf16Source, kTiles, kColumns, kSwiglu, kRowsAhead, kShared>(p, group, inputs, slices);
  }
}

/// kAhead chunks of each tile are on their way; kBlocks blocks share a multiprocessor.
template <int kTiles, int kColumns, bool kSwiglu, int kAhead, int kBlocks, int kRing = -1>
void launch_few(Context& cx, FewRows& p) {
  constexpr int kOwn = kSwiglu ? kTiles / 2 : kTiles;
  const int most = multiprocessors(cx.device) * kBlocks;
  int blocks = 0;
  for (int i = 0; i < p.group_count; ++i) {
    Group& group = p.groups[i];
    group.items = 0;
    for (int o = 0; o < (kSwiglu ? 1 : group.outputs); ++o) {
      Output& out = p.outputs[group.first_output + o];
      out.first_item = group.items;
      group.items += static_cast<int>((tiles_of(out.weight.rows) + kOwn - 1) / kOwn);
    }
    // As many items for each block, as far as that goes.
    group.blocks = group.items / ((group.items + most - 1) / most);
    group.first_block = blocks;
    blocks += group.blocks;
  }
  const size_t shared = kRing < 0 ? 0 : ring_bytes<kTiles, kRing>() + input_bytes(p.T, p.outputs[0].weight.columns);
  launch(cx, "linears", few_rows<kTiles, kColumns, kSwiglu, kAhead, kBlocks, kRing>,
         dim3(static_cast<unsigned>(blocks)), dim3(kWarps * 32), shared, p);
}

}  // namespace

void few_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  FewRows p{};
  p.x = static_cast<const __nv_bfloat16*>(x.raw());
  p.T = static_cast<int>(x.dim(0));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Linear& w = *outputs[i].weight;
    if (i == 0 || w.format != outputs[i - 1].weight->format) {
      p.groups[p.group_count++] = {w.format, static_cast<int>(i), 0, 0, 0, 0};
    }
    ++p.groups[p.group_count - 1].outputs;
    p.outputs[i] = {device_weight(w), 0, outputs[i].y.raw(), outputs[i].y.dtype() == DType::bf16};
  }
  // Inputs go to shared memory where two blocks of a multiprocessor have room for them, weights if they still have
  // some.
  constexpr size_t kRoom = size_t{102} << 10, kSwigluRoom = size_t{94} << 10;
  const size_t inputs = input_bytes(p.T, p.outputs[0].weight.columns);
  // More tiles per block where the inputs are many: they are read once per block.
  if (swiglu) {
    if (p.T <= 8 && inputs + ring_bytes<2, 3>() <= kSwigluRoom) return launch_few<2, 1, true, 2, 2, 3>(cx, p);
    if (p.T <= 8 && inputs <= kSwigluRoom) return launch_few<2, 1, true, 2, 2, 0>(cx, p);
    if (p.T <= 8) return launch_few<2, 1, true, 2, 2>(cx, p);
    if (p.T <= 16) return launch_few<2, 2, true, 2, 2>(cx, p);
    if (p.T <= 32) return launch_few<2, 4, true, 2, 1>(cx, p);
    return launch_few<2, 8, true, 1, 1>(cx, p);
  }
  if (p.T <= 8 && inputs + ring_bytes<1, 6>() <= kRoom) return launch_few<1, 1, false, 4, 2, 6>(cx, p);
  if (p.T <= 8 && inputs + ring_bytes<1, 3>() <= kRoom) return launch_few<1, 1, false, 4, 2, 3>(cx, p);
  if (p.T <= 8 && inputs <= kRoom) return launch_few<1, 1, false, 4, 2, 0>(cx, p);
  if (p.T <= 8) return launch_few<1, 1, false, 4, 2>(cx, p);
  if (p.T <= 16) return launch_few<2, 2, false, 2, 2>(cx, p);
  if (p.T <= 32) return launch_few<2, 4, false, 2, 1>(cx, p);
  return launch_few<2, 8, false, 1, 1>(cx, p);
}

}  // namespace nibble::ops
