// Attention of the long sequences by wgmma, which Hopper alone has: 128 rows, 64 per warpgroup. While the weights of
// one tile are multiplied with its values, the scores of the next become weights.
#include "ops/attention/attention_long_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kRows = 128, kThreads = kRows * 2, kQueryBytes = kRows * kLongSize * 2;
// q, then two tiles of keys and two of values; and room to begin at a multiple of 1024, as the swizzle wants.
constexpr int kSharedBytes = kQueryBytes + 4 * kKeyTileBytes + 1024;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// A matrix in panels as tile_offset lays them out. `leading`: bytes between panels, where they are gone through.
__device__ uint64_t matrix(uint32_t address, int leading) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kEightRows = 1024;
  return (address & 0x3FFFF) >> 4 | static_cast<uint64_t>(leading >> 4) << 16 | kEightRows >> 4 << 32 | kSwizzle128;
}

__device__ void products_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Keeps the compiler from moving what touches these registers across the instructions above.
template <int kCount>
__device__ void keep_in_order(float (&x)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) asm volatile("" : "+f"(x[i][j])::"memory");
  }
}
__device__ void keep_in_order(uint32_t (&x)[kTileKeys / 16][4]) {
#pragma unroll
  for (int i = 0; i < kTileKeys / 16; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) asm volatile("" : "+r"(x[i][j])::"memory");
  }
}

// clang-format off
#define FOUR(x, i) "+f"(x[i][0]), "+f"(x[i][1]), "+f"(x[i][2]), "+f"(x[i][3])
#define SIXTEEN(x, i) FOUR(x, i), FOUR(x, i + 1), FOUR(x, i + 2), FOUR(x, i + 3)

/// s (+)= q k', 64 x 64 x 16; both operands in shared memory with their rows along D.
__device__ void multiply_scores(float (&s)[8][4], uint64_t q, uint64_t k, int add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"
      "%25,%26,%27,%28,%29,%30,%31"
      "}, %32, %33, add, 1, 1, 0, 0;\n}"
      : SIXTEEN(s, 0), SIXTEEN(s, 4)
      : "l"(q), "l"(k), "r"(add));
}

/// y += p v, 64 x 256 x 16; the weights in registers, the values with their rows along D.
__device__ void multiply_values(float (&y)[32][4], const uint32_t (&p)[4], uint64_t v) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"
      "%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,"
      "%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,"
      "%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,"
      "%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,"
      "%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
      "}, {%128,%129,%130,%131}, %132, add, 1, 1, 1;\n}"
      : SIXTEEN(y, 0), SIXTEEN(y, 4), SIXTEEN(y, 8), SIXTEEN(y, 12), SIXTEEN(y, 16), SIXTEEN(y, 20), SIXTEEN(y, 24),
        SIXTEEN(y, 28)
      : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}
#undef SIXTEEN
#undef FOUR
// clang-format on

/// Queues s = the warpgroup's 64 rows of q times the keys of a tile.
__device__ void score(float (&s)[8][4], uint32_t queries, uint32_t keys) {
#pragma unroll
  for (int step = 0; step < kLongSize / 16; ++step) {
    const int panel = step / 4, within = step % 4 * 32;
    multiply_scores(s, matrix(queries + panel * (kRows * 128) + within, 16),
                    matrix(keys + panel * (kTileKeys * 128) + within, 16), step > 0);
  }
}

/// Queues y += weights times the values of a tile.
__device__ void add_values(float (&y)[32][4], const uint32_t (&weights)[4][4], uint32_t values) {
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    multiply_values(y, weights[step], matrix(values + step * 2048, kTileKeys * 128));
  }
}

__global__ void __launch_bounds__(kThreads, 1) attend(const __grid_constant__ AttentionOperands a) {
  extern __shared__ char unaligned[];
  char* const shared = unaligned + (1024 - hopper::shared_address(unaligned) % 1024) % 1024;
  wait_for_predecessor();
  let_successor_start();
  const RowTile t = row_tile<kRows>(a);
  if (t.sequence.slot < 0) return;
  if (t.begin >= t.end) return write_nothing<kRows, kThreads>(a, t);
  const uint32_t queries = hopper::shared_address(shared), keys = queries + kQueryBytes,
                 values = keys + 2 * kKeyTileBytes;
  const int64_t cache = cache_at(a, t.sequence.slot, 0, t.kv_head);
  const int warpgroup = threadIdx.x / 128, row = t.first + warp_id() * 16 + lane_id() / 4;
  const int position[2] = {t.sequence.position + row / t.group, t.sequence.position + (row + 8) / t.group};
  const uint32_t own_queries = queries + warpgroup * (64 * 128);

  const auto load_keys = [&](int tile) {
    if (tile < t.end) load_key_tile<kThreads>(a, t, a.keys + cache, tile, keys + tile % 2 * kKeyTileBytes);
  };
  const auto load_values = [&](int tile) {
    if (tile < t.end) load_key_tile<kThreads>(a, t, a.values + cache, tile, values + tile % 2 * kKeyTileBytes);
  };
  // All copies up to now are there, for the matrix instructions of all warps; and all warps are done with the tile
  // before.
  const auto next_tile = [&] {
    copies_wait<0>();
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
  };
  OnlineSoftmax softmax;
  const auto weigh = [&](float(&s)[8][4], int tile) {
    const int visible[2] = {position[0] + 1 - tile * kTileKeys, position[1] + 1 - tile * kTileKeys};
    if (tile < t.full) {
      softmax.weigh<false>(s, a.score_scale, visible);
    } else {
      softmax.weigh<true>(s, a.score_scale, visible);
    }
  };

  load_queries<kRows, kThreads>(a, t, queries);
  load_keys(t.begin);
  copies_commit();
  next_tile();
  load_values(t.begin);
  load_keys(t.begin + 1);
  copies_commit();

  float y[kLongSize / 8][4] = {}, s[kTileKeys / 8][4] = {};
  uint32_t weights[kTileKeys / 16][4];
  keep_in_order(s);
  products_begin();
  score(s, own_queries, keys + t.begin % 2 * kKeyTileBytes);
  products_commit();
  products_wait<0>();
  keep_in_order(s);
  weigh(s, t.begin);
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) weight_fragment(s, step, weights[step]);

  for (int tile = t.begin; tile + 1 < t.end; ++tile) {
    next_tile();
    keep_in_order(s);
    keep_in_order(y);
    keep_in_order(weights);
    products_begin();
    score(s, own_queries, keys + (tile + 1) % 2 * kKeyTileBytes);
    products_commit();
    add_values(y, weights, values + tile % 2 * kKeyTileBytes);
    products_commit();
    load_values(tile + 1);
    load_keys(tile + 2);
    copies_commit();
    products_wait<1>();
    keep_in_order(s);
    weigh(s, tile + 1);
    products_wait<0>();
    keep_in_order(y);
    keep_in_order(weights);
    softmax.rescale(y);
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) weight_fragment(s, step, weights[step]);
  }
  next_tile();
  keep_in_order(y);
  keep_in_order(weights);
  products_begin();
  add_values(y, weights, values + (t.end - 1) % 2 * kKeyTileBytes);
  products_commit();
  load_gate<kRows>(a, t, warp_id() * 16, queries);
  copies_commit();
  products_wait<0>();
  keep_in_order(y);
  copies_wait<0>();
  __syncwarp();
  write_rows<kRows>(a, t, warp_id() * 16, softmax, y, shared);
}

#else

__global__ void attend(const __grid_constant__ AttentionOperands) {}

#endif

}  // namespace

void attention_long_wgmma(Context& cx, const AttentionOperands& a, int64_t rows) {
  launch(cx, "gated_attention: long", attend, long_grid<kRows>(a, rows), kThreads, kSharedBytes, a);
}

}  // namespace nibble::ops
