// The recurrence where no sequence has more than one row: all that counts is that S travels at the memory's speed. A
// block owns a whole value head. Its 64 KB of S are copied into shared memory and back in large pieces that no thread
// carries; two blocks share a multiprocessor, and while one computes the other's are on their way. A warp owns 8
// columns over all rows, as in delta_step. The value heads of one key head form a cluster because they share channels
// of the convolution: only one block writes those back, after all have read them.
#include "ops/gated_delta/delta_mixer_step_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kSize = 128;          // Dk and Dv
constexpr int kGroups = kSize / 8;  // of rows and of columns
constexpr int kThreads = 32 * kGroups;
constexpr int kTile = 8 * kSize / 4;  // 8 rows of S in float4
// Two more between tiles in shared memory: the lanes of a warp, which read 2 of every eighth row, meet no bank twice.
constexpr int kStride = kTile + 2;

/// One thread asks for S; `arrived` is a barrier that nobody has used.
__device__ inline void ask_for_state(uint64_t* arrived, float4* S, const float4* state) {
  hopper::barrier_init(arrived, 1);
  hopper::barrier_fence();
  hopper::barrier_expect(arrived, 16 * kGroups * kTile);
  for (int i = 0; i < kGroups; ++i) hopper::bulk_copy(S + i * kStride, state + i * kTile, 16 * kTile, arrived);
}
/// Thread i sends tile i back. What all threads wrote is visible to the copy behind their fence and a barrier.
__device__ inline void fence_for_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void send_tile(float4* state, const float4* S, int i) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(state + i * kTile),
               "r"(hopper::shared_address(S + i * kStride)), "n"(16 * kTile)
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Shared memory must live until the thread's tile has left it.
__device__ inline void wait_until_sent() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/// grid (Hv/Hk, Hk, sequences), a cluster along x; dynamic shared memory: S.
__global__ void __launch_bounds__(kThreads, 2) delta_token(DeltaMixerArgs m) {
  if constexpr (!hopper::kSm90) return;
  extern __shared__ __align__(16) float4 S[];
  __shared__ __align__(16) float row[3 * kSize];
  __shared__ float squares[kGroups];
  __shared__ uint64_t arrived;
  __shared__ Token token;
  float *const k = row, *const q = row + kSize, *const v = row + 2 * kSize;  // y takes the place of v

  const int rank = blockIdx.x, key_head = blockIdx.y, head = key_head * gridDim.x + rank, sequence = blockIdx.z;
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  const int64_t at = m.begin[sequence], slot = m.slot[sequence];
  const bool fresh = m.position[sequence] == 0;
  if (slot < 0 || m.begin[sequence + 1] == at) {
    wait_for_predecessor();
    return;
  }

  // The convolution's past is asked for before S, so that k and q are ready when S is there.
  const int part = tid / kSize;  // whose channel: of k, q, v or, at 3, nobody's
  const int first = part == 0 ? m.key_heads + key_head : part == 1 ? key_head : 2 * m.key_heads + head;
  const int channel = first * kSize + tid % kSize;
  float* const conv_state = m.conv_state + slot * 3 * m.channels + channel;
  float4 tap = {0, 0, 0, 0};
  float past[3] = {};
  if (part < 3) {
    tap = *reinterpret_cast<const float4*>(m.conv + 4 * channel);
#pragma unroll
    for (int j = 0; j < 3; ++j) past[j] = fresh ? 0 : conv_state[j * m.channels];
  }
  float4* const state = reinterpret_cast<float4*>(m.S + (slot * m.heads + head) * kSize * kSize);
  if (fresh) {
    for (int i = tid; i < kGroups * kStride; i += kThreads) S[i] = {0, 0, 0, 0};
  } else if (tid == 0) {
    ask_for_state(&arrived, S, state);
  }
  wait_for_predecessor();
  let_successor_start();

  uint32_t z = 0;  // of the two columns whose y this thread makes
  float2 norm = {0, 0};
  const int64_t out = (at * m.heads + head) * kSize + 2 * tid;
  if (tid < kSize / 2) {
    z = __ldcg(reinterpret_cast<const uint32_t*>(m.z + out));
    norm = *reinterpret_cast<const float2*>(m.norm + 2 * tid);
  }
  if (part < 3) row[tid] = conv_silu(tap, past, bf16_to_f32(__ldcg(m.mix + at * m.channels + channel)));
  if (tid == kThreads - 1) {
    token.decay = expf(delta_decay(__ldcg(m.a + at * m.heads + head), m.a_log[head], m.dt_bias[head]));
    token.beta = delta_strength(__ldcg(m.b + at * m.heads + head));
  }
  hopper::cluster_arrive();  // has read the past
  __syncthreads();
  if (warp == 0) measure_keys<kSize>(m, k, q, token);
  if (!fresh) hopper::barrier_wait(&arrived, 0);
  __syncthreads();

  const int group = lane / 2;
  float4* const column = S + group * kStride + 2 * warp + lane % 2;
  float key[8], query[8], key_sum[4] = {}, query_sum[4] = {}, write[4];
  load_rows<8>(k + 8 * group, key);
  load_rows<8>(q + 8 * group, query);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float4 s = column[i * kSize / 4];
    const float four[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      key_sum[j] = fmaf(key[i], four[j], key_sum[j]);
      query_sum[j] = fmaf(query[i], four[j], query_sum[j]);
    }
  }
  const Token c = token;
  meet_columns(key_sum, query_sum, c, v + 8 * warp + lane % 2 * 4, write);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float4 s = column[i * kSize / 4];
    column[i * kSize / 4] = {fmaf(key[i], write[0], c.decay * s.x), fmaf(key[i], write[1], c.decay * s.y),
                             fmaf(key[i], write[2], c.decay * s.z), fmaf(key[i], write[3], c.decay * s.w)};
  }
  __syncwarp();
  if (lane == 0) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) sum = fmaf(v[8 * warp + j], v[8 * warp + j], sum);
    squares[warp] = sum;
  }
  fence_for_copies();
  __syncthreads();

  const bool sends = warp == kGroups - 1 && lane < kGroups;
  if (sends) send_tile(state, S, lane);
  if (tid < kSize / 2) {
    const float2 x = *reinterpret_cast<const float2*>(v + 2 * tid);
    *reinterpret_cast<__nv_bfloat162*>(m.y + out) = gated_pair(m, squares, x, norm, z);
  }
  hopper::cluster_wait();
  if (part == 2 || (part < 2 && rank == 0)) {
#pragma unroll
    for (int j = 0; j < 3; ++j) conv_state[j * m.channels] = past[j];
  }
  if (sends) wait_until_sent();
}

}  // namespace

void delta_mixer_tokens(Context& cx, const DeltaMixerArgs& m) {
  const int cluster = m.heads / m.key_heads;
  NIBBLE_CHECK(m.longest == 1 && m.key_size == kSize && m.value_size == kSize && cluster <= 8);
  const dim3 grid(static_cast<unsigned>(cluster), static_cast<unsigned>(m.key_heads),
                  static_cast<unsigned>(m.sequences));
  launch_clusters(cx, "delta_mixer", delta_token, grid, dim3(static_cast<unsigned>(cluster)), dim3(kThreads),
                  sizeof(float4) * kGroups * kStride, m);
}

}  // namespace nibble::ops
