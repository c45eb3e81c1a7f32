// Products of NVFP4 weights with up to four rows of inputs: what a step of one sequence, or of one and its draft,
// spends its time on.
//
// Eight warps share the 16 rows of a tile (of gate and of up, for SwiGLU), each a slice of its columns. Weights come
// through shared memory by copies that no register waits for: kRing of a warp's chunks are on their way, across the
// borders of items. What then bounds the loop is its instructions, and what costs time beside it is each kernel's
// begin: blocks of the next product take the places of those that have ended, and their first weights are there when
// the inputs are, for which a warp of its own waits.
#include <algorithm>

#include "ops/linear/few_rows.cuh"
#include "tensor/hopper.cuh"

namespace nibble::ops {
namespace {

constexpr int64_t kMostRows = 4;                         // more are faster in few_rows_cuda.cu
constexpr int kWarps = kSlices, kThreads = kWarps * 32;  // that multiply; one more warp brings their inputs
/// Per multiprocessor, no more and no less: were there room for a third, the first to come would share one
/// multiprocessor while another has none.
constexpr int kBlocks = 2;
constexpr int kChunkBytes = kPairCodeBytes + kPairScaleBytes;

/// Of chunks that are on their way in shared memory.
constexpr size_t ring_bytes(int tiles, int ring) {
  return static_cast<size_t>(kWarps) * tiles * ring * kChunkBytes;
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
  if (kSets<kTiles> == 1) hopper::barrier_of<kThreads>();
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
    const float(&sum)[4] = sums[r][0];
    set[r][thread / 32][thread % 32] = {sum[0], sum[1], sum[2], sum[3]};
  }
  hopper::barrier_of<kThreads>();
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

/// x to shared memory past the L1 cache, by one thread: whole rows, since asking for a copy takes long.
__device__ void bring_inputs(const FewRows& p, int columns, __nv_bfloat16* inputs, uint64_t* arrived) {
  hopper::barrier_expect(arrived, p.T * columns * 2);
  for (int t = 0; t < p.T; ++t) {
    hopper::bulk_copy(inputs + t * shared_pitch(columns), p.x + static_cast<int64_t>(t) * columns, columns * 2,
                      arrived);
  }
}
/// Zeros behind the last column, as far as weights are packed: mostly there are none.
__device__ void clear_behind(const FewRows& p, int columns, __nv_bfloat16* inputs) {
  const int pitch = shared_pitch(columns), behind = padded(columns) - columns;
  for (int i = threadIdx.x; i < p.T * behind; i += blockDim.x) {
    inputs[i / behind * pitch + columns + i % behind] = __nv_bfloat16();
  }
}
/// Behind this the inputs are in shared memory: few rows were brought, more are copied by all threads of the block.
__device__ void await_inputs(const FewRows& p, int columns, __nv_bfloat16* inputs, uint64_t* arrived) {
  if (p.T <= kEarlyRows) return hopper::barrier_wait(arrived, 0);
  wait_for_predecessor();
  let_successor_start();
  copy_inputs(p, columns, inputs);
  copies_are_there();
}
/// By the warp that brings inputs.
__device__ void feed_inputs(const FewRows& p, int columns, __nv_bfloat16* inputs, uint64_t* arrived) {
  if (p.T > kEarlyRows) return await_inputs(p, columns, inputs, arrived);
  wait_for_predecessor();
  if (threadIdx.x == kThreads) bring_inputs(p, columns, inputs, arrived);
}

/// A lane's inputs of a chunk in shared memory. Lanes of rows that are not there ask for nothing, and nobody looks at
/// their results.
struct LaneInputs {
  uint32_t at;  // of the chunk
  bool there;

  __device__ uint4 operator()(int, int unit, int half) const {
    uint4 x;
    asm volatile("{\n.reg .pred there;\nsetp.ne.s32 there, %5, 0;\n@there ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(at + (unit * kUnitColumns + half * 8) * 2), "r"(static_cast<int>(there)));
    return x;
  }
};
/// Of the warp's first chunk.
__device__ inline LaneInputs lane_inputs(const FewRows& p, const __nv_bfloat16* inputs, int columns,
                                         int chunk_columns) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4;
  const __nv_bfloat16* at = inputs + warp * chunk_columns + lane % 4 * 16;
  if (row < p.T) at += row * shared_pitch(columns);
  return {hopper::shared_address(at), row < p.T};
}

template <int kTiles, int kRing>
__device__ void run_packed(const FewRows& p, const FewRowsGroup& group, uint8_t* ring, __nv_bfloat16* inputs,
                           uint64_t* arrived, Slices<kTiles>& slices) {
  constexpr int kSlotBytes = kTiles * kChunkBytes, kLast = (kRing - 1) * kSlotBytes;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, columns = p.outputs[0].weight.columns;
  const int pairs = static_cast<int>(pairs_of(columns)), own = (pairs - warp + kWarps - 1) / kWarps;
  uint8_t* const slots = ring + warp * (kRing * kSlotBytes) + lane * 16;
  const int scales_at = kPairCodeBytes - lane * 12;  // of a lane's four, from where its codes are

  // A lane asks for the bytes that it will read itself, so nothing waits for another lane.
  const uint8_t *codes[kTiles], *scales[kTiles];
  int asked = own > 0 ? static_cast<int>(blockIdx.x) - group.first_block : group.items, left = own, place = 0;
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
  // The next chunk takes the place of the one that was read last.
  const auto ask = [&] {
    if (asked < group.items) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        const auto to = hopper::shared_address(slots + place + r * kChunkBytes);
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
    copies_commit();
    place = place == kLast ? 0 : place + kSlotBytes;
  };
  seek();
  // Until the inputs are there, one chunk after the other: that keeps memory busy. More would stand in the way of the
  // kernel before, and of the inputs themselves.
  bool hurry = p.T > kEarlyRows;
#pragma unroll 1
  for (int d = 0; d < kRing; ++d) {
    if (d > 0 && !hurry) {
      asm volatile("cp.async.wait_all;" ::: "memory");
      hurry = hopper::barrier_passed(arrived, 0);
    }
    ask();
  }
  await_inputs(p, columns, inputs, arrived);

  const LaneInputs first = lane_inputs(p, inputs, columns, kPairColumns);
  int turn = 0;
  for (int index = static_cast<int>(blockIdx.x) - group.first_block; index < group.items; index += group.blocks) {
    float sums[kTiles][1][4] = {};
    LaneInputs x = first;
#pragma unroll 1
    for (int c = 0; c < own; ++c, x.at += kWarps * kPairColumns * 2) {
      copies_wait<kRing - 1>();
      Nvfp4Source::Chunk chunk[kTiles];
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        const uint8_t* const from = slots + place + r * kChunkBytes;
        chunk[r] = {{*reinterpret_cast<const uint4*>(from), *reinterpret_cast<const uint4*>(from + 512)},
                    *reinterpret_cast<const uint32_t*>(from + scales_at)};
      }
      multiply<Nvfp4Source>(chunk, x, sums);
      ask();
    }
    finish<kTiles>(p, Item(p, group, index, kTiles == 2), turn++, sums, slices);
  }
}

/// Weights of other formats beside NVFP4 ones are few: two chunks of a warp are on their way, from the L2 cache.
template <class Source, int kTiles>
__device__ void run_rows(const FewRows& p, const FewRowsGroup& group, __nv_bfloat16* inputs, uint64_t* arrived,
                         Slices<kTiles>& slices) {
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
  await_inputs(p, columns, inputs, arrived);
  const LaneInputs first = lane_inputs(p, inputs, columns, kChunkColumns<Source>);
  for (; index < group.items; index += group.blocks) {
    float sums[kTiles][1][4] = {};
    LaneInputs x = first;
#pragma unroll 1
    for (int c = 0; c < own; c += kAhead) {
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
        if (c + d >= own) break;
        multiply<Source>(ahead[d], x, sums);
        x.at += kWarps * kChunkColumns<Source> * 2;
        load(c + d + kAhead, d);
      }
    }
    begin(index + group.blocks);
    finish<kTiles>(p, Item(p, group, index, kTiles == 2), turn++, sums, slices);
  }
}

/// kMixed: some weights have another format, which takes more registers.
template <int kTiles, int kRing, bool kMixed>
__global__ void __launch_bounds__(kThreads + 32, kBlocks) packed_rows(const __grid_constant__ FewRows p) {
  if constexpr (!hopper::kSm90) return;
  extern __shared__ __align__(128) uint8_t dynamic[];
  __shared__ Slices<kTiles> slices;
  __shared__ uint64_t arrived;
  if (p.T <= kEarlyRows) let_successor_start();
  const FewRowsGroup& group = own_group(p);
  auto* inputs = reinterpret_cast<__nv_bfloat16*>(dynamic + ring_bytes(kTiles, kRing));
  if (threadIdx.x == kThreads) {
    hopper::barrier_init(&arrived, 1);
    hopper::barrier_fence();
  }
  const int columns = p.outputs[0].weight.columns;
  clear_behind(p, columns, inputs);
  __syncthreads();
  if (threadIdx.x >= kThreads) return feed_inputs(p, columns, inputs, &arrived);
  if constexpr (kMixed) {
    if (group.format == WeightFormat::fp8) return run_rows<Fp8Source, kTiles>(p, group, inputs, &arrived, slices);
    if (group.format == WeightFormat::bf16) return run_rows<Bf16Source, kTiles>(p, group, inputs, &arrived, slices);
  }
  run_packed<kTiles, kRing>(p, group, dynamic, inputs, &arrived, slices);
}

/// False where the ring and the inputs do not fit.
template <int kTiles, int kRing, bool kMixed>
bool launch_packed(Context& cx, FewRows& p) {
  const size_t needed = ring_bytes(kTiles, kRing) + input_bytes(p.T, p.outputs[0].weight.columns);
  constexpr size_t kBeside = sizeof(Slices<kTiles>);
  if (needed + kBeside > shared_memory_of_block(cx.device, kBlocks)) return false;
  const unsigned blocks = deal_items(p, 1, kTiles == 2, multiprocessors(cx.device) * kBlocks);
  launch(cx, "linears", packed_rows<kTiles, kRing, kMixed>, dim3(blocks), dim3(kThreads + 32),
         std::max(needed, shared_memory_of_block(cx.device, kBlocks + 1) - kBeside + 16), p);
  return true;
}

}  // namespace

bool packed_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  const auto packed = [](const LinearOutput& o) { return o.weight->format == WeightFormat::nvfp4; };
  if (x.dim(0) > kMostRows || std::ranges::none_of(outputs, packed) || !has_clusters(cx.device)) return false;
  FewRows p = few_rows_of(x, outputs);
  if (swiglu) return launch_packed<2, 4, false>(cx, p);  // gate and up have one format
  if (p.group_count > 1) return launch_packed<1, 6, true>(cx, p) || launch_packed<1, 4, true>(cx, p);
  return launch_packed<1, 6, false>(cx, p) || launch_packed<1, 4, false>(cx, p);
}

}  // namespace nibble::ops
