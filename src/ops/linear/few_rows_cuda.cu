// Products with up to 64 rows of inputs, and with any number in pieces of as many where no warpgroups multiply or a
// weight has few rows: every weight is read once per piece, as the A operand of 16x8x16 products whose columns are rows
// of x. Eight warps share the 16 (or more) rows of an item, each a slice of its columns; their sums meet in shared
// memory in the order of the slices. Neither the slices nor any order of addition depends on T.
//
// The pieces of a tile are neighbours among the items, so that its weights come from memory once. Blocks stay and go
// from item to item, so that the weights of the next are on their way while one is finished. NVFP4 weights with up to
// four rows of inputs have a kernel of their own (packed_rows_cuda.cu).
#include <algorithm>

#include "ops/linear/few_rows.cuh"
#include "ops/linear/linears_cuda.h"

namespace nibble::ops {
namespace {

constexpr int kWarps = kSlices;

template <int kTiles, int kColumns, bool kSwiglu>
struct Item {
  static constexpr int kOwn = kSwiglu ? kTiles / 2 : kTiles;  // tiles of one weight

  const FewRowsOutput* out;
  int first_tile, first_row;  // of the weight, of x

  __device__ Item(const FewRows& p, const FewRowsGroup& group, int index) {
    first_row = index % p.pieces * (kColumns * 8);
    index /= p.pieces;
    out = &p.outputs[group.first_output];
    if constexpr (!kSwiglu) {
      const FewRowsOutput* last = out + group.outputs - 1;
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
      const int n_out = (work.first_tile + r) * kTileRows + row, t = work.first_row + (first + n) * 8 + column;
      if (t >= p.T || n_out >= work.out->weight.rows) continue;
      const auto total = [&](int tile) {
        return tree_sum([&](int slice) { return reinterpret_cast<const float*>(&set[n][slice][tile][from])[part]; });
      };
      float y = scaled(work.out->weight, n_out, total(r));
      if constexpr (kSwiglu) y = swiglu_of(y, scaled(work.out[1].weight, n_out, total(r + Work::kOwn)));
      store(*work.out, static_cast<int64_t>(t) * work.out->weight.rows + n_out, y);
    }
  }
}

template <class Source, int kTiles, int kColumns, bool kSwiglu, int kAhead, bool kShared>
__device__ void run(const FewRows& p, const FewRowsGroup& group, __nv_bfloat16* inputs,
                    Slices<kTiles, kColumns>& slices) {
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
  const auto load_ahead = [&]<int kFrom, int kTo>() {
#pragma unroll
    for (int d = kFrom; d < kTo; ++d) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        if (d < own) here[r].load(d * kWarps, ahead[d][r]);
      }
    }
  };
  // Half of the chunks stand behind inputs that go to shared memory, or these would stand behind them all.
  constexpr int kFirst = kShared ? std::max(kAhead / 2, 1) : kAhead;
  load_ahead.template operator()<0, kFirst>();
  if constexpr (kTiles == 1 && kColumns > 1 && requires { here[0].ask(0); }) {
    for (int c = kAhead; c < own; ++c) here[0].ask(c * kWarps);
  }
  if (p.T <= kEarlyRows) let_successor_start();
  wait_for_predecessor();
  if (p.T > kEarlyRows) let_successor_start();

  // Read once per item: from shared memory where they fit there, or every chunk would wait for the L2 cache.
  if constexpr (kShared) {
    copy_inputs(p, columns, inputs);
    load_ahead.template operator()<kFirst, kAhead>();
    copies_are_there();
  }
  const int pitch = kShared ? shared_pitch(columns) : columns,
            first_column = warp * kChunkColumns<Source> + lane % 4 * 16;
  const __nv_bfloat16* x = (kShared ? inputs : p.x) + static_cast<int64_t>(g) * pitch + first_column;
  int turn = 0;
  for (; index < group.items; index += group.blocks) {
    const Work work(p, group, index);
    const __nv_bfloat16* const rows = x + static_cast<int64_t>(work.first_row) * pitch;
    const bool more = index + group.blocks < group.items;
    seek(next, index + group.blocks);
    float sums[kTiles][kColumns][4] = {};
    for (int base = 0; base < own; base += kAhead) {
#pragma unroll
      for (int d = 0; d < kAhead; ++d) {
        const int chunk = base + d, at = chunk * kStep;
        if (chunk >= own) break;
        const int left_rows = p.T - work.first_row - g, left_columns = columns - first_column - at;
        const auto inputs_of = [&](int n, int unit, int half) {
          const bool inside = n * 8 < left_rows && unit * kUnitColumns < left_columns;
          const __nv_bfloat16* const from = rows + at + static_cast<int64_t>(n) * 8 * pitch + unit * kUnitColumns;
          return inside ? *reinterpret_cast<const uint4*>(from + half * 8) : uint4{};
        };
        multiply<Source>(ahead[d], inputs_of, sums);
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

    finish_item(p, work, turn++, sums, slices);
  }
}

/// kAhead chunks of each tile are on their way; kBlocks blocks share a multiprocessor. kShared: the inputs lie in
/// shared memory.
template <int kTiles, int kColumns, bool kSwiglu, int kAhead, int kBlocks, bool kShared>
__global__ void __launch_bounds__(kWarps * 32, kBlocks) few_rows(const __grid_constant__ FewRows p) {
  extern __shared__ __align__(128) uint8_t dynamic[];
  __shared__ Slices<kTiles, kColumns> slices;
  const FewRowsGroup& group = own_group(p);
  auto* inputs = reinterpret_cast<__nv_bfloat16*>(dynamic);
  constexpr int kRowsAhead = kAhead > 1 ? kAhead / 2 : 1;  // a chunk of rows takes more registers than a packed one
  switch (group.format) {
    case WeightFormat::nvfp4:
      return run<Nvfp4Source, kTiles, kColumns, kSwiglu, kAhead, kShared>(p, group, inputs, slices);
    case WeightFormat::fp8:
      return run<Fp8Source, kTiles, kColumns, kSwiglu, kRowsAhead, kShared>(p, group, inputs, slices);
    default:
      return run<Bf16Source, kTiles, kColumns, kSwiglu, kRowsAhead, kShared>(p, group, inputs, slices);
  }
}

template <int kTiles, int kColumns, bool kSwiglu, int kAhead, int kBlocks, bool kShared = false>
void launch_few(Context& cx, FewRows& p) {
  p.pieces = (p.T + kColumns * 8 - 1) / (kColumns * 8);
  const unsigned blocks = deal_items(p, kSwiglu ? kTiles / 2 : kTiles, kSwiglu, multiprocessors(cx.device) * kBlocks);
  const auto kernel = few_rows<kTiles, kColumns, kSwiglu, kAhead, kBlocks, kShared>;
  const size_t shared = kShared ? input_bytes(p.T, p.outputs[0].weight.columns) : 0;
  // More than eight rows of x are read through the L1 cache; fewer gain nothing.
  if (kColumns > 1) prefer_cache(cx, "linears", kernel, kBlocks * (sizeof(Slices<kTiles, kColumns>) + kSharedOfSystem));
  launch(cx, "linears", kernel, dim3(blocks), dim3(kWarps * 32), shared, p);
}

}  // namespace

void few_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  if (packed_rows_cuda(cx, x, outputs, swiglu)) return;
  FewRows p = few_rows_of(x, outputs);
  // Inputs go to shared memory where two blocks of a multiprocessor have room for them beside the slices' sums.
  const size_t sums = swiglu ? sizeof(Slices<2, 1>) : sizeof(Slices<1, 1>);
  const bool inputs_fit =
      p.T <= 8 && input_bytes(p.T, p.outputs[0].weight.columns) + sums <= shared_memory_of_block(cx.device, 2);
  // More tiles per block where the inputs are many: they are read once per block.
  if (swiglu) {
    if (inputs_fit) return launch_few<2, 1, true, 2, 2, true>(cx, p);
    if (p.T <= 8) return launch_few<2, 1, true, 2, 2>(cx, p);
    if (p.T <= 16) return launch_few<2, 2, true, 2, 2>(cx, p);
    if (p.T <= 32) return launch_few<2, 4, true, 2, 1>(cx, p);
    return launch_few<2, 8, true, 1, 1>(cx, p);
  }
  if (inputs_fit) return launch_few<1, 1, false, 4, 2, true>(cx, p);
  if (p.T <= 8) return launch_few<1, 1, false, 4, 2>(cx, p);
  if (p.T <= 16) return launch_few<2, 2, false, 2, 2>(cx, p);
  // Small outputs would leave multiprocessors idle: a tile per item, and few rows of x.
  int64_t tiles = 0;
  for (const LinearOutput& o : outputs) tiles += tiles_of(o.weight->out);
  if (4 * tiles <= multiprocessors(cx.device)) {
    if (p.T <= kFewRows) return launch_few<1, 2, false, 4, 2>(cx, p);
    return launch_few<1, 8, false, 4, 1>(cx, p);
  }
  if (p.T <= 32) return launch_few<2, 4, false, 2, 1>(cx, p);
  return launch_few<2, 8, false, 1, 1>(cx, p);
}

}  // namespace nibble::ops
