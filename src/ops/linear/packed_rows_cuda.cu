// Products of NVFP4 weights with up to four rows of inputs: what a step of one sequence, or of one and its draft,
// spends its time on.
//
// Eight warps share the 16 rows of a tile (of gate and of up, for SwiGLU), each a slice of its columns. Weights come
// through shared memory by copies that no register waits for: kRing pairs of a warp's chunks are on their way, across
// the borders of items. What then bounds the loop is its instructions, and what costs time beside it is each kernel's
// begin: blocks of the next product take the places of those that have ended, and their first weights are there when
// the inputs that they wait for are.
#include <algorithm>

#include "ops/linear/few_rows.cuh"

namespace nibble::ops {
namespace {

constexpr int64_t kMostRows = 4;  // with more the inputs leave the weights no room
constexpr int kWarps = kSlices, kThreads = kWarps * 32;
/// Per multiprocessor, no more and no less: were there room for a third, the first to come would share one
/// multiprocessor while another has none.
constexpr int kBlocks = 2;
constexpr int kAll = 1 << 30;  // columns and rows of inputs are there, if only as zeros or twice
constexpr int kChunkBytes = kPairCodeBytes + kPairScaleBytes;

/// Of pairs of chunks that are on their way in shared memory.
constexpr size_t ring_bytes(int tiles, int ring) {
  return static_cast<size_t>(kWarps) * tiles * ring * 2 * kChunkBytes;
}

/// A tile of an output; for SwiGLU that of gate, and the same of up beside it.
struct Item {
  const FewRowsOutput* out;
  int tile;

  __device__ Item(const FewRows& p, const FewRowsGroup& group, int index, bool swiglu) {
    out = &p.outputs[group.first_output];
    if (!swiglu) {
      const FewRowsOutput* last = out + group.outputs - 1;
      while (out < last && index >= out[1].first_item) ++out;
    }
    tile = index - out->first_item;
  }
};

/// Two sets by turns, so that warps that are done finish an item while others already write the next; SwiGLU, whose
/// items are large, has one.
template <int kTiles>
constexpr int kSets = kTiles == 1 ? 2 : 1;
template <int kTiles>
using Slices = float4[kSets<kTiles>][kTiles][kWarps][32];

/// The slices of an item meet and become rows of y.
template <int kTiles>
__device__ void finish(const FewRows& p, const Item& item, int turn, const float (&sums)[kTiles][1][4],
                       Slices<kTiles>& slices) {
  auto& set = slices[turn % kSets<kTiles>];
  if (kSets<kTiles> == 1) __syncthreads();
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
    const float(&sum)[4] = sums[r][0];
    set[r][thread / 32][thread % 32] = {sum[0], sum[1], sum[2], sum[3]};
  }
  __syncthreads();
  // Neighbouring threads finish neighbouring rows of the weight, which are neighbours in y.
  const int row = thread % 16, t = thread / 16, n = item.tile * kTileRows + row;
  if (t >= p.T || n >= item.out->weight.rows) return;
  const int from = (row % 8) * 4 + t / 2, part = row / 8 * 2 + t % 2;
  const auto total = [&](int tile) {
    return tree_sum([&](int slice) { return reinterpret_cast<const float*>(&set[tile][slice][from])[part]; });
  };
  float y = scaled(item.out->weight, n, total(0));
  if constexpr (kTiles == 2) y = swiglu_of(y, scaled(item.out[1].weight, n, total(1)));
  store(*item.out, static_cast<int64_t>(t) * item.out->weight.rows + n, y);
}

/// The inputs of a lane's columns of a product. Those behind the last row repeat it, and nobody looks at their results.
__device__ inline const __nv_bfloat16* lane_inputs(const FewRows& p, const __nv_bfloat16* inputs, int columns,
                                                   int chunk_columns) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  return inputs + min(lane / 4, p.T - 1) * shared_pitch(columns) + warp * chunk_columns + lane % 4 * 16;
}

template <int kTiles, int kRing>
__device__ void run_packed(const FewRows& p, const FewRowsGroup& group, uint8_t* ring, __nv_bfloat16* inputs,
                           Slices<kTiles>& slices) {
  constexpr int kSlotBytes = kTiles * kChunkBytes, kLast = (kRing - 1) * 2 * kSlotBytes;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, columns = p.outputs[0].weight.columns;
  const int pairs = static_cast<int>(pairs_of(columns)), own = (pairs - warp + kWarps - 1) / kWarps;
  uint8_t* const slots = ring + warp * (kRing * 2 * kSlotBytes) + lane * 16;
  const int scales_at = kPairCodeBytes - lane * 12;  // of a lane's four, from where its codes are

  // A lane asks for the bytes that it will read itself, so nothing waits for another lane.
  const uint8_t *codes[kTiles], *scales[kTiles];
  int asked = static_cast<int>(blockIdx.x) - group.first_block, left = own, place = 0;
  const auto seek = [&] {
    if (asked >= group.items) return;
    const Item item(p, group, asked, kTiles == 2);
    const int64_t pair = static_cast<int64_t>(item.tile) * pairs + warp;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      codes[r] = item.out[r].weight.data + pair * kPairCodeBytes + lane * 16;
      scales[r] = item.out[r].weight.scales + pair * kPairScaleBytes + lane * 4;
    }
  };
  const auto ask = [&] {
    if (asked < group.items && own > 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (half == 1 && left == 1) break;
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
          const auto to =
              static_cast<uint32_t>(__cvta_generic_to_shared(slots + place + half * kSlotBytes + r * kChunkBytes));
          asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(to), "l"(codes[r]) : "memory");
          asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(to + 512), "l"(codes[r] + 512)
                       : "memory");
          asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to + scales_at), "l"(scales[r]) : "memory");
          codes[r] += kWarps * kPairCodeBytes;
          scales[r] += kWarps * kPairScaleBytes;
        }
      }
      left -= 2;
      if (left <= 0) {
        left = own;
        asked += group.blocks;
        seek();
      }
    }
    place = place == kLast ? 0 : place + 2 * kSlotBytes;
  };
  // Inputs of a warp's chunks, which no other warp reads, stay where they come to.
  const auto ask_inputs = [&](int first_chunk) {
    for (int chunk = first_chunk; chunk < min(first_chunk + 2, own); ++chunk) {
      const int first = (chunk * kWarps + warp) * kPairColumns;
      for (int i = lane; i < p.T * kPairColumns / 8; i += 32) {
        const int t = i / (kPairColumns / 8), column = first + i % (kPairColumns / 8) * 8;
        copy_piece(p, columns, t, column, inputs + t * shared_pitch(columns) + column);
      }
    }
  };
  const auto commit = [] { asm volatile("cp.async.commit_group;" ::: "memory"); };
  seek();
#pragma unroll 1
  for (int d = 0; d < kRing; ++d) {
    ask();
    commit();
  }
  wait_for_predecessor();
  if (p.T > kEarlyRows) let_successor_start();
#pragma unroll 1
  for (int d = 0; d < kRing; ++d) {
    ask_inputs(2 * d);
    commit();
  }

  const __nv_bfloat16* const x = lane_inputs(p, inputs, columns, kPairColumns);
  int turn = 0;
  for (int index = static_cast<int>(blockIdx.x) - group.first_block; index < group.items; index += group.blocks) {
    float sums[kTiles][1][4] = {};
    const auto multiply_chunk = [&](const uint8_t* slot, const __nv_bfloat16* at) {
      Nvfp4Source::Chunk chunk[kTiles];
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        const uint8_t* const from = slot + r * kChunkBytes;
        chunk[r] = {{*reinterpret_cast<const uint4*>(from), *reinterpret_cast<const uint4*>(from + 512)},
                    *reinterpret_cast<const uint32_t*>(from + scales_at)};
      }
      multiply<Nvfp4Source>(chunk, at, kAll, 0, kAll, sums);
    };
    const __nv_bfloat16* at = x;
#pragma unroll 1
    for (int c = 0; c < own; c += 2, at += 2 * kWarps * kPairColumns) {
      asm volatile("cp.async.wait_group %0;" ::"n"(kRing - 1) : "memory");
      if (turn == 0) __syncwarp();
      multiply_chunk(slots + place, at);
      if (c + 1 < own) multiply_chunk(slots + place + kSlotBytes, at + kWarps * kPairColumns);
      ask();
      if (turn == 0) ask_inputs(c + 2 * kRing);
      commit();
    }
    finish<kTiles>(p, Item(p, group, index, kTiles == 2), turn++, sums, slices);
  }
}

/// Weights of other formats beside NVFP4 ones are few: two chunks of a warp are on their way, from the L2 cache.
template <class Source, int kTiles>
__device__ void run_rows(const FewRows& p, const FewRowsGroup& group, __nv_bfloat16* inputs, Slices<kTiles>& slices) {
  constexpr int kAhead = 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, columns = p.outputs[0].weight.columns;
  const int chunks = (columns + kChunkColumns<Source> - 1) / kChunkColumns<Source>;
  const int own = (chunks - warp + kWarps - 1) / kWarps;
  Source sources[kTiles];
  typename Source::Chunk ahead[kAhead][kTiles];
  const auto load = [&](int chunk, int d) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      if (chunk < own) sources[r].load(chunk * kWarps, ahead[d][r]);
    }
  };
  const auto begin = [&](int index) {
    if (index >= group.items) return;
    const Item item(p, group, index, kTiles == 2);
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      sources[r].seek(item.out[r].weight, item.tile, warp, lane);
      for (int c = kAhead; c < own; ++c) sources[r].ask(c * kWarps);
    }
#pragma unroll
    for (int d = 0; d < kAhead; ++d) load(d, d);
  };
  int index = static_cast<int>(blockIdx.x) - group.first_block, turn = 0;
  begin(index);
  wait_for_predecessor();
  if (p.T > kEarlyRows) let_successor_start();
  copy_inputs(p, columns, inputs);
  const __nv_bfloat16* const x = lane_inputs(p, inputs, columns, kChunkColumns<Source>);
  for (; index < group.items; index += group.blocks) {
    float sums[kTiles][1][4] = {};
#pragma unroll 1
    for (int c = 0; c < own; c += kAhead) {
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
        if (c + d >= own) break;
        multiply<Source>(ahead[d], x + (c + d) * kWarps * kChunkColumns<Source>, kAll, 0, kAll, sums);
        load(c + d + kAhead, d);
      }
    }
    begin(index + group.blocks);
    finish<kTiles>(p, Item(p, group, index, kTiles == 2), turn++, sums, slices);
  }
}

/// kMixed: some weights have another format, which takes more registers.
template <int kTiles, int kRing, bool kMixed>
__global__ void __launch_bounds__(kThreads, kBlocks) packed_rows(const __grid_constant__ FewRows p) {
  extern __shared__ __align__(128) uint8_t dynamic[];
  __shared__ Slices<kTiles> slices;
  if (p.T <= kEarlyRows) let_successor_start();
  const FewRowsGroup& group = own_group(p);
  auto* inputs = reinterpret_cast<__nv_bfloat16*>(dynamic + ring_bytes(kTiles, kRing));
  if constexpr (kMixed) {
    if (group.format == WeightFormat::fp8) return run_rows<Fp8Source, kTiles>(p, group, inputs, slices);
    if (group.format == WeightFormat::bf16) return run_rows<Bf16Source, kTiles>(p, group, inputs, slices);
  }
  run_packed<kTiles, kRing>(p, group, dynamic, inputs, slices);
}

/// False where the ring and the inputs do not fit.
template <int kTiles, int kRing, bool kMixed>
bool launch_packed(Context& cx, FewRows& p) {
  const size_t needed = ring_bytes(kTiles, kRing) + input_bytes(p.T, p.outputs[0].weight.columns);
  constexpr size_t kBeside = sizeof(Slices<kTiles>);
  if (needed + kBeside > shared_memory_of_block(cx.device, kBlocks)) return false;
  const unsigned blocks = deal_items(p, 1, kTiles == 2, multiprocessors(cx.device) * kBlocks);
  launch(cx, "linears", packed_rows<kTiles, kRing, kMixed>, dim3(blocks), dim3(kThreads),
         std::max(needed, shared_memory_of_block(cx.device, kBlocks + 1) - kBeside + 16), p);
  return true;
}

}  // namespace

bool packed_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  const auto packed = [](const LinearOutput& o) { return o.weight->format == WeightFormat::nvfp4; };
  if (x.dim(0) > kMostRows || std::ranges::none_of(outputs, packed)) return false;
  FewRows p = few_rows_of(x, outputs);
  if (swiglu) return launch_packed<2, 2, false>(cx, p);  // gate and up have one format
  if (p.group_count > 1) return launch_packed<1, 3, true>(cx, p) || launch_packed<1, 2, true>(cx, p);
  return launch_packed<1, 3, false>(cx, p) || launch_packed<1, 2, false>(cx, p);
}

}  // namespace nibble::ops
