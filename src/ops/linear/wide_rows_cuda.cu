// Products of NVFP4 weights with 17 to 128 rows of inputs on sm_90: all inputs are one tile, which warpgroup products
// take from shared memory; weights are decoded into registers, straight into their A operand. Every weight is read and
// decoded once.
//
// A block multiplies kGroups * 64 rows of weights, a warpgroup for each 64, and a thread of its own brings the inputs,
// chunk by chunk of 128 columns. So that all multiprocessors have work and few read the same inputs, the blocks of a
// cluster share the slices of the same rows; their sums meet through shared memory.
//
// For T <= 64 a row gets the bits of few_rows_cuda: the same products (a warpgroup's are bit for bit those of
// mma.sync), added chunk by chunk within a slice, and the slices as the same tree.
#include "ops/linear/wide_rows.cuh"

#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "ops/linear/input_image.cuh"
#include "ops/linear/linears_cuda.h"

namespace nibble::ops {
namespace wide {
namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Four rows' sums of all blocks that share their slices.
template <class L, int kRanks>
__device__ inline float4 total(typename L::Shared& s, int token, int row) {
  const float* const own = &s.sums[token][row];
  float4 parts[kRanks];
#pragma unroll
  for (int r = 0; r < kRanks; ++r) {
    parts[r] =
        kRanks == 1 ? *reinterpret_cast<const float4*>(own) : hopper::load_from_block(hopper::address_in_block(own, r));
  }
  return {tree_sum<kRanks>([&](int r) { return parts[r].x; }), tree_sum<kRanks>([&](int r) { return parts[r].y; }),
          tree_sum<kRanks>([&](int r) { return parts[r].z; }), tree_sum<kRanks>([&](int r) { return parts[r].w; })};
}

__device__ inline void store(const Output& out, int64_t index, int count, const float (&y)[4]) {
  if (count == 4 && out.weight.rows % 4 == 0) {
    if (out.y_is_bf16) {
      *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(out.y) + index) = {pack_bf16(y[0], y[1]),
                                                                               pack_bf16(y[2], y[3])};
    } else {
      *reinterpret_cast<float4*>(static_cast<float*>(out.y) + index) = {y[0], y[1], y[2], y[3]};
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >= count) break;
    if (out.y_is_bf16) {
      static_cast<__nv_bfloat16*>(out.y)[index + i] = __float2bfloat16_rn(y[i]);
    } else {
      static_cast<float*>(out.y)[index + i] = y[i];
    }
  }
}

/// Rows of y from the sums of kTurn tokens from first_token on: those of a warp, or a rank's share of a block's.
template <class L, int kRanks, bool kOneWarp>
__device__ void write_turn(const WideRows& p, const Place& place, int item, int first_token, typename L::Shared& s) {
  constexpr int kOwnRows = kOneWarp ? kTileRows : L::kOwnTiles * kTileRows;
  constexpr int kFours = kOwnRows / 4, kShare = L::kTurn / kRanks;
  const int first_row = kOneWarp ? static_cast<int>(threadIdx.x) / 32 * kTileRows : 0;
  for (int i = kOneWarp ? threadIdx.x % 32 : threadIdx.x; i < kShare * kFours; i += kOneWarp ? 32 : L::kMultipliers) {
    const int row = first_row + i % kFours * 4, token = place.rank * kShare + i / kFours;
    const int tile = item * L::kOwnTiles + row / kTileRows;
    const bool to_image = L::kSwiglu && p.y_image != nullptr;
    if ((first_token + token >= p.T && !to_image) || tile >= p.tiles) continue;
    const Output& out = L::kSwiglu ? p.outputs[0] : output_of(p, tile);
    const int n_out = (L::kSwiglu ? tile : tile - out.first_tile) * kTileRows + row % kTileRows;
    const int count = min(4, out.weight.rows - n_out);
    if (count <= 0) continue;
    const float4 sums = total<L, kRanks>(s, token, row);
    float y[4] = {sums.x, sums.y, sums.z, sums.w};
#pragma unroll
    for (float& value : y) value *= out.weight.factor;
    if constexpr (L::kSwiglu) {
      const float4 others = total<L, kRanks>(s, token, row + kOwnRows);
      const float up[4] = {others.x, others.y, others.z, others.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) y[k] = swiglu_of(y[k], up[k] * p.outputs[1].weight.factor);
      if (to_image) {
        store_to_image(p.y_image, L::kTokens, first_token + token, n_out, pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]));
        continue;
      }
    }
    store(out, static_cast<int64_t>(first_token + token) * out.weight.rows + n_out, count, y);
  }
}

/// For all threads of the blocks that share slices: all sums of a turn are there.
__device__ inline void sums_are_there() {
  hopper::cluster_arrive();
  hopper::cluster_wait();
}
/// All sums were read.
__device__ inline void sums_were_read() {
  hopper::cluster_begin();
  hopper::cluster_wait();
}

/// Sums of an item become rows of y.
template <class L>
__device__ void finish(const WideRows& p, int item, typename L::Shared& s, const float (&sums)[L::kSums]) {
  const Place place(p);
#pragma unroll
  for (int first = 0; first < L::kTokens; first += L::kTurn) {
#pragma unroll
    for (int i = 0; i < L::kTurn / 2; ++i) place_of<L>(s, i) = sums[first / 2 + i];
    if (p.ranks == 1) {
      // Where no other warp has what a row needs, none is waited for.
      const auto meet = [] {
        if constexpr (L::kSwiglu) {
          hopper::barrier_of<L::kMultipliers>();
        } else {
          __syncwarp();
        }
      };
      meet();
      write_turn<L, 1, !L::kSwiglu>(p, place, item, first, s);
      meet();
      continue;
    }
    sums_are_there();
    if (p.ranks == 2) write_turn<L, 2, false>(p, place, item, first, s);
    if (p.ranks == 4) write_turn<L, 4, false>(p, place, item, first, s);
    if (p.ranks == 8) write_turn<L, 8, false>(p, place, item, first, s);
    sums_were_read();
  }
}

#endif

template <class L>
__global__ void __launch_bounds__(L::kThreads, 1) wide_rows(const __grid_constant__ WideRows p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t raw[];
  auto& s = *reinterpret_cast<typename L::Shared*>(raw);
  const Place place(p);
  if (threadIdx.x == 0) {
    for (int i = 0; i < L::kStages; ++i) {
      hopper::barrier_init(&s.full[i], 1);
      hopper::barrier_init(&s.empty[i], L::kWarps);
    }
    hopper::barrier_fence();
  }
  __syncthreads();
  StageAt at;
  if (threadIdx.x >= L::kMultipliers) {
    hopper::give_registers<L::kOtherRegisters>();
    wait_for_predecessor();
    let_successor_start();
    for (int item = place.cluster; item < p.items; item += place.clusters) {
      if (threadIdx.x == L::kMultipliers) feed<L>(p, place, s, at);
      __syncwarp();
      for (int first = 0; p.ranks > 1 && first < L::kTokens; first += L::kTurn) {
        sums_are_there();
        sums_were_read();
      }
    }
  } else {
    hopper::take_registers<L::kRegisters>();
    Weights<L> weights(p, place, s);
#pragma unroll 1
    for (int d = 0; d < kRing; ++d) weights.ask();
    wait_for_predecessor();
    let_successor_start();
    for (int item = place.cluster; item < p.items; item += place.clusters) {
      float sums[L::kSums];
      multiply_slices<L>(p, weights, at, s, sums);
      finish<L>(p, item, s, sums);
    }
  }
#endif
}

struct Variant {
  void (*kernel)(WideRows);
  int groups, own_tiles, turns, threads;
  size_t shared;
};
template <class L>
constexpr Variant variant_of() {
  return {wide_rows<L>, L::kGroups, L::kOwnTiles, L::kTokens / L::kTurn, L::kThreads, L::kSharedBytes};
}

/// How many clusters of this many blocks run at a time.
int clusters_at_once(const Context& cx, const Variant& v, int blocks) {
  static std::mutex mutex;
  static std::map<std::tuple<int, const void*, int>, int> known;
  const std::lock_guard lock(mutex);
  const auto* kernel = reinterpret_cast<const void*>(v.kernel);
  const auto [at, asked] = known.try_emplace({cx.device.index, kernel, blocks}, 0);
  if (asked) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(v.threads));
    config.dynamicSmemBytes = v.shared;
    config.attrs = &attribute;
    config.numAttrs = 1;
    cx.stream->note(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(v.shared)),
        "linears");
    cx.stream->note(cudaOccupancyMaxActiveClusters(&at->second, kernel, &config), "linears");
  }
  return at->second;
}

/// Microseconds that the blocks work, roughly, as an H200 showed them; infinite for what does not fit the GPU.
double expected_us(const Context& cx, const Variant& v, const WideRows& p, int tokens, int ranks) {
  const int at_once = clusters_at_once(cx, v, ranks), items = (p.tiles + v.own_tiles - 1) / v.own_tiles;
  if (at_once == 0) return std::numeric_limits<double>::infinity();
  const int rounds = (items + at_once - 1) / at_once;
  const int chunks = (p.chunks + kSlices - 1) / kSlices * (kSlices / ranks);
  const double chunk = 0.2 + v.groups * (tokens > 64 ? 0.3 : tokens > 32 ? 0.205 : 0.14);
  const double meetings = ranks > 1 ? v.turns * (0.5 + 0.05 * ranks) : 0;
  return rounds * (chunks * chunk + 0.7 + meetings);
}

template <int kTokens, bool kSwiglu>
void launch_wide(Context& cx, WideRows& p) {
  constexpr Variant kVariants[] = {variant_of<Layout<kTokens, 1, kSwiglu>>(), variant_of<Layout<kTokens, 2, kSwiglu>>(),
                                   variant_of<Layout<kTokens, 3, kSwiglu>>()};
  const Variant* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const Variant& v : kVariants) {
    for (const int ranks : {1, 2, 4, 8}) {
      const double us = expected_us(cx, v, p, kTokens, ranks);
      if (us >= least) continue;
      least = us;
      best = &v;
      p.ranks = ranks;
    }
  }
  NIBBLE_CHECK(best != nullptr);
  const int most = clusters_at_once(cx, *best, p.ranks);
  p.items = (p.tiles + best->own_tiles - 1) / best->own_tiles;
  // As many items for each cluster, as far as that goes.
  const int rounds = (p.items + most - 1) / most, clusters = (p.items + rounds - 1) / rounds;
  launch_clusters(cx, "linears", best->kernel, dim3(static_cast<unsigned>(clusters * p.ranks)),
                  dim3(static_cast<unsigned>(p.ranks)), dim3(static_cast<unsigned>(best->threads)), best->shared, p);
}

template <int kTokens>
void launch_wide(Context& cx, WideRows& p, bool swiglu) {
  if (swiglu) return launch_wide<kTokens, true>(cx, p);
  launch_wide<kTokens, false>(cx, p);
}

}  // namespace
}  // namespace wide

void wide_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  const Arena::Scope scope(cx.arena);
  wide::WideRows p{};
  p.T = static_cast<int>(x.dim(0));
  p.chunks = static_cast<int>(pairs_of(outputs[0].weight->in));
  for (const LinearOutput& o : outputs) {
    NIBBLE_CHECK(o.weight->format == WeightFormat::nvfp4);
    p.outputs[p.count++] = {device_weight(*o.weight), p.tiles, o.y.raw(), o.y.dtype() == DType::bf16};
    if (!swiglu || p.count == 1) p.tiles += static_cast<int>(tiles_of(o.weight->out));
  }
  const int tokens = image_tile(p.T);
  NIBBLE_CHECK(p.T <= tokens);
  const Tensor image = image_of(cx, x);
  p.image = image.u8();
  if (swiglu && outputs[0].y.dtype() == DType::u8) p.y_image = static_cast<uint4*>(outputs[0].y.raw());
  if (tokens == 32) return wide::launch_wide<32>(cx, p, swiglu);
  if (tokens == 64) return wide::launch_wide<64>(cx, p, swiglu);
  wide::launch_wide<128>(cx, p, swiglu);
}

}  // namespace nibble::ops
