// Attention of the long sequences by mma.sync, on any GPU with 99 KB of shared memory for a block: 64 rows, 16 per
// warp.
#include "ops/attention/attention_long_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kRows = 64, kThreads = kRows * 2;
constexpr int kQueryBytes = kRows * kLongSize * 2, kSharedBytes = kQueryBytes + 2 * kKeyTileBytes;

/// s = 16 rows of q times the keys of a tile.
__device__ void score(float (&s)[kTileKeys / 8][4], uint32_t queries, uint32_t keys) {
  const int lane = lane_id();
#pragma unroll 4
  for (int step = 0; step < kLongSize / 16; ++step) {
    uint32_t q[4];
    load_matrices(queries + tile_offset<kRows>(warp_id() * 16 + lane % 16, 2 * step + lane / 16), q);
#pragma unroll
    for (int pair = 0; pair < kTileKeys / 16; ++pair) {
      uint32_t k[4];
      load_matrices(keys + tile_offset<kTileKeys>(pair * 16 + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2), k);
      mma_bf16(s[2 * pair], q, {k[0], k[1]});
      mma_bf16(s[2 * pair + 1], q, {k[2], k[3]});
    }
  }
}

/// y += the tile's weights times its values.
__device__ void add_values(float (&y)[kLongSize / 8][4], const float (&p)[kTileKeys / 8][4], uint32_t values) {
  const int lane = lane_id();
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    uint32_t w[4];
    weight_fragment(p, step, w);
#pragma unroll
    for (int pair = 0; pair < kLongSize / 16; ++pair) {
      uint32_t v[4];
      load_matrices_turned(values + tile_offset<kTileKeys>(step * 16 + lane % 16, 2 * pair + lane / 16), v);
      mma_bf16(y[2 * pair], w, {v[0], v[1]});
      mma_bf16(y[2 * pair + 1], w, {v[2], v[3]});
    }
  }
}

__global__ void __launch_bounds__(kThreads) attend(const __grid_constant__ AttentionOperands a) {
  extern __shared__ __align__(1024) char shared[];
  wait_for_predecessor();
  let_successor_start();
  const RowTile t = row_tile<kRows>(a);
  if (t.sequence.slot < 0) return;
  if (t.begin >= t.end) return write_nothing<kRows, kThreads>(a, t);
  const uint32_t queries = hopper::shared_address(shared), keys = queries + kQueryBytes, values = keys + kKeyTileBytes;
  const int64_t cache = cache_at(a, t.sequence.slot, 0, t.kv_head);
  const int row = t.first + warp_id() * 16 + lane_id() / 4;
  const int position[2] = {t.sequence.position + row / t.group, t.sequence.position + (row + 8) / t.group};

  load_queries<kRows, kThreads>(a, t, queries);
  load_key_tile<kThreads>(a, t, a.keys + cache, t.begin, keys);
  copies_commit();
  float y[kLongSize / 8][4] = {};
  OnlineSoftmax softmax;
  for (int tile = t.begin; tile < t.end; ++tile) {
    load_key_tile<kThreads>(a, t, a.values + cache, tile, values);
    copies_commit();
    copies_wait<1>();
    __syncthreads();
    float s[kTileKeys / 8][4] = {};
    score(s, queries, keys);
    __syncthreads();
    if (tile + 1 < t.end) load_key_tile<kThreads>(a, t, a.keys + cache, tile + 1, keys);
    copies_commit();
    const int visible[2] = {position[0] + 1 - tile * kTileKeys, position[1] + 1 - tile * kTileKeys};
    if (tile < t.full) {
      softmax.weigh<false>(s, a.score_scale, visible);
    } else {
      softmax.weigh<true>(s, a.score_scale, visible);
    }
    softmax.rescale(y);
    copies_wait<1>();
    __syncthreads();
    add_values(y, s, values);
    __syncthreads();
  }
  load_gate<kRows>(a, t, warp_id() * 16, queries);
  copies_commit();
  copies_wait<0>();
  __syncwarp();
  write_rows<kRows>(a, t, warp_id() * 16, softmax, y, shared);
}

}  // namespace

void attention_long(Context& cx, const AttentionOperands& a, int64_t rows) {
  launch(cx, "gated_attention: long", attend, long_grid<kRows>(a, rows), kThreads, kSharedBytes, a);
}

}  // namespace nibble::ops
