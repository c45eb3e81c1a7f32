// The recurrence. A block owns a slice of a value head's columns: their part of S lies in registers from the first
// token to the last, so it travels through memory once in each direction. A warp owns 8 columns over all Dk rows: its
// lanes are 2 groups of 4 columns times 16 groups of kRows rows, and its sums need no other warp. The slices of all
// value heads of one key head form a cluster, because the rows of y are normed over whole heads and because q and k
// channels of the convolution are shared: only one block writes those back, after all have read them.
#include "ops/gated_delta/delta_mixer_cuda.h"
#include "ops/gated_delta/gates.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kTile = kDeltaStepRows;  // tokens between two exchanges of a cluster
constexpr int kMaxPartials = 256 / 8;  // sums over 8 columns of a head

/// Says no more than that this block has begun: it orders no memory, which would wait for what is on its way.
__device__ inline void cluster_begin() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ inline void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// Stores into the same place of another block's shared memory.
__device__ inline void store_at(float* place, int rank, float value) {
  const auto local = static_cast<uint32_t>(__cvta_generic_to_shared(place));
  uint32_t remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(local), "r"(rank));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(remote), "f"(value) : "memory");
}

/// x / (1 + exp(-x)) and 1 / (1 + exp(-x)) within some 2^-21, without the branches of an exact division. Where the
/// exponential overflows, the quotient is 0 as it should be.
__device__ inline float quick_silu(float x) {
  return __fdividef(x, 1.0f + __expf(-x));
}
__device__ inline float gate_of(float z, Gate gate) {
  return gate == Gate::silu ? quick_silu(z) : __fdividef(1.0f, 1.0f + __expf(-z));
}

/// What a token means to a whole head.
struct Token {
  float decay, beta;
  float key, query;  // lengths of k and q to 1, the latter times the scale
  float overlap;     // <q,k> of these
};

/// kRows floats.
template <int kRows>
__device__ inline void load_rows(const float* from, float (&to)[kRows]) {
  if constexpr (kRows % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      const float4 x = *reinterpret_cast<const float4*>(from + i);
      to[i] = x.x, to[i + 1] = x.y, to[i + 2] = x.z, to[i + 3] = x.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kRows; ++i) to[i] = from[i];
  }
}

/// Sums of k (low lanes) and q (high lanes) times the columns, over the 16 row groups of a warp: lane l is left with
/// the sum of column 2 * bit 3 + bit 2 for k or, with bit 4, for q.
__device__ inline float sum_row_groups(const float (&key)[4], const float (&query)[4]) {
  const int lane = threadIdx.x % 32;
  float four[4], two[2];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float keep = lane & 16 ? query[j] : key[j], give = lane & 16 ? key[j] : query[j];
    four[j] = keep + __shfl_xor_sync(0xFFFFFFFF, give, 16);
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const float keep = lane & 8 ? four[2 + j] : four[j], give = lane & 8 ? four[j] : four[2 + j];
    two[j] = keep + __shfl_xor_sync(0xFFFFFFFF, give, 8);
  }
  const float keep = lane & 4 ? two[1] : two[0], give = lane & 4 ? two[0] : two[1];
  const float one = keep + __shfl_xor_sync(0xFFFFFFFF, give, 4);
  return one + __shfl_xor_sync(0xFFFFFFFF, one, 2);
}

/// Dk <= 16 * kRows. grid (slices * Hv/Hk, Hk, sequences), a cluster along x; dynamic shared memory: see step_floats.
template <int kRows, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, kRows <= 8 ? 16 / kWarps : 1)
    delta_step(DeltaMixerArgs m, int slices, bool short_only) {
  constexpr int kThreads = 32 * kWarps, kKeys = 16 * kRows, kColumns = 8 * kWarps, kRow = 2 * kKeys + kColumns;
  constexpr int kChannels = (kRow + kThreads - 1) / kThreads, kPairs = kTile * kColumns / 2 / kThreads;
  extern __shared__ float4 shared_memory[];
  // A row: k, q, then v of the slice's columns, whose places take the outputs.
  float(*const row)[kRow] = reinterpret_cast<float(*)[kRow]>(shared_memory);
  __shared__ float squares[2][kTile][kMaxPartials];  // by turns: a neighbour may be one tile ahead
  __shared__ Token token[kTile];

  const int sequence = blockIdx.z, rank = blockIdx.x, slice = rank % slices;
  const int head = blockIdx.y * (m.heads / m.key_heads) + rank / slices;
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  const int first = m.begin[sequence], rows = m.begin[sequence + 1] - first, slot = m.slot[sequence];
  const bool fresh = m.position[sequence] == 0;
  if (slot < 0 || rows <= 0 || (short_only && rows > kTile)) {
    wait_for_predecessor();
    return;
  }
  cluster_begin();  // others may store into this block

  // S, the convolution's past and its weights come from long before: they travel while the predecessor ends.
  const int group = lane / 2, local = warp * 8 + lane % 2 * 4, column = slice * kColumns + local;
  const bool active = slice * kColumns + warp * 8 < m.value_size;
  float* const state = m.S + (static_cast<int64_t>(slot) * m.heads + head) * m.key_size * m.value_size + column;
  float S[kRows][4];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    float4 x = {0, 0, 0, 0};
    const int key = group * kRows + i;
    if (active && !fresh && key < m.key_size) x = *reinterpret_cast<const float4*>(state + key * m.value_size);
    S[i][0] = x.x, S[i][1] = x.y, S[i][2] = x.z, S[i][3] = x.w;
  }
  const int keys = m.key_heads * m.key_size;
  int channel[kChannels];
  float4 tap[kChannels];
  float past[kChannels][3];
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    const int n = tid + i * kThreads, in_head = n % kKeys, v = n - 2 * kKeys;
    channel[i] = -1;
    if (n < 2 * kKeys) {
      if (in_head < m.key_size) channel[i] = (n < kKeys ? keys : 0) + blockIdx.y * m.key_size + in_head;
    } else if (v < kColumns && slice * kColumns + v < m.value_size) {
      channel[i] = 2 * keys + head * m.value_size + slice * kColumns + v;
    }
    tap[i] = {0, 0, 0, 0};
    if (channel[i] >= 0) tap[i] = *reinterpret_cast<const float4*>(m.conv + 4 * channel[i]);
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      past[i][j] = 0;
      if (channel[i] >= 0 && !fresh) {
        past[i][j] = m.conv_state[(static_cast<int64_t>(slot) * 3 + j) * m.channels + channel[i]];
      }
    }
  }
  const float a_log = m.a_log[head], dt_bias = m.dt_bias[head];
  float2 norm = {0, 0};  // of the columns whose y this thread makes: every tile the same
  const int out_column = tid % (kColumns / 2) * 2;
  if (slice * kColumns + out_column < m.value_size) {
    norm = *reinterpret_cast<const float2*>(m.norm + slice * kColumns + out_column);
  }
  wait_for_predecessor();
  let_successor_start();

  for (int begin = 0; begin < rows; begin += kTile) {
    const int n = min(kTile, rows - begin);
    const int64_t at = first + begin;
    // What kernels of this step wrote is read past L1, where a multiprocessor may hold older lines.
    uint32_t z[kPairs];
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int pair = tid + i * kThreads, t = pair / (kColumns / 2), c = slice * kColumns + pair % (kColumns / 2) * 2;
      z[i] = 0;
      if (t < n && c < m.value_size) {
        z[i] = __ldcg(reinterpret_cast<const uint32_t*>(m.z + ((at + t) * m.heads + head) * m.value_size + c));
      }
    }
    float a = 0, b = 0;
    if (tid < n) {
      a = __ldcg(m.a + (at + tid) * m.heads + head);
      b = __ldcg(m.b + (at + tid) * m.heads + head);
    }
    for (int t = 0; t < n; t += 4) {
      float mix[kChannels][4];
#pragma unroll
      for (int i = 0; i < kChannels; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          mix[i][j] = 0;
          if (channel[i] >= 0 && t + j < n)
            mix[i][j] = bf16_to_f32(__ldcg(m.mix + (at + t + j) * m.channels + channel[i]));
        }
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (t + j >= n) break;
#pragma unroll
        for (int i = 0; i < kChannels; ++i) {
          const float x = mix[i][j];
          const float pre =
              fmaf(tap[i].w, x, fmaf(tap[i].z, past[i][2], fmaf(tap[i].y, past[i][1], tap[i].x * past[i][0])));
          past[i][0] = past[i][1], past[i][1] = past[i][2], past[i][2] = x;
          if (tid + i * kThreads < kRow) row[t + j][tid + i * kThreads] = quick_silu(pre);
        }
      }
    }
    if (tid < n) {
      token[tid].decay = expf(delta_decay(a, a_log, dt_bias));
      token[tid].beta = delta_strength(b);
    }
    __syncthreads();

    for (int t = warp; t < n; t += kWarps) {
      float kk = 0, qq = 0, qk = 0;
#pragma unroll
      for (int i = lane; i < kKeys; i += 32) {
        const float k = row[t][i], q = row[t][kKeys + i];
        kk = fmaf(k, k, kk), qq = fmaf(q, q, qq), qk = fmaf(q, k, qk);
      }
      kk = warp_sum(kk), qq = warp_sum(qq), qk = warp_sum(qk);
      if (lane == 0) {
        const float key = rsqrtf(kk + m.l2_eps), query = m.scale * rsqrtf(qq + m.l2_eps);
        token[t].key = key, token[t].query = query, token[t].overlap = qk * key * query;
      }
    }
    __syncthreads();

    if (active) {
      const int mine = 2 * (lane >> 3 & 1) + (lane >> 2 & 1);  // the column of the group whose sums end in this lane
      for (int t = 0; t < n; ++t) {
        const Token c = token[t];
        float k[kRows], q[kRows], key_sum[4] = {}, query_sum[4] = {};
        load_rows<kRows>(&row[t][group * kRows], k);
        load_rows<kRows>(&row[t][kKeys + group * kRows], q);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            key_sum[j] = fmaf(k[i], S[i][j], key_sum[j]);
            query_sum[j] = fmaf(q[i], S[i][j], query_sum[j]);
          }
        }
        // With S the state before the token: S~^T k = decay S^T k, and y = S~^T q + <q,k> d.
        const float sum = sum_row_groups(key_sum, query_sum) * c.decay;
        const float query = c.query * __shfl_xor_sync(0xFFFFFFFF, sum, 16);
        float d = 0;
        if ((lane & 18) == 0) {
          float* const slot = &row[t][2 * kKeys + local + mine];
          d = c.beta * fmaf(-c.key, sum, *slot);
          *slot = fmaf(c.overlap, d, query);
        }
        d *= c.key;
        float write[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) write[j] = __shfl_sync(0xFFFFFFFF, d, (lane & 1) + 4 * (j % 2) + 8 * (j / 2));
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) S[i][j] = fmaf(k[i], write[j], c.decay * S[i][j]);
        }
      }
      __syncwarp();
    }
    if (begin == 0) cluster_wait();
    float(*const sums)[kMaxPartials] = squares[begin / kTile % 2];
    if (active && lane < n) {
      float sum = 0;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float x = row[lane][2 * kKeys + warp * 8 + j];
        sum = fmaf(x, x, sum);
      }
      const int leader = rank - slice;
      for (int peer = leader; peer < leader + slices; ++peer) store_at(&sums[lane][slice * kWarps + warp], peer, sum);
    }
    cluster_arrive();
    if (active && begin + kTile >= rows) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int key = group * kRows + i;
        if (key < m.key_size) {
          *reinterpret_cast<float4*>(state + key * m.value_size) = {S[i][0], S[i][1], S[i][2], S[i][3]};
        }
      }
    }
    cluster_wait();

    const int partials = m.value_size / 8;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int t = (tid + i * kThreads) / (kColumns / 2), c = slice * kColumns + out_column;
      if (t >= n || c >= m.value_size) continue;
      float sum = 0;
#pragma unroll 8
      for (int j = 0; j < partials; j += 2) sum += sums[t][j] + sums[t][j + 1];
      const float r = rsqrtf(__fdividef(sum, static_cast<float>(m.value_size)) + m.norm_eps);
      const float2 x = *reinterpret_cast<const float2*>(&row[t][2 * kKeys + out_column]);
      const float left = x.x * r * norm.x * gate_of(f32_from_bits(z[i] << 16), m.gate);
      const float right = x.y * r * norm.y * gate_of(f32_from_bits(z[i] & 0xFFFF0000), m.gate);
      *reinterpret_cast<__nv_bfloat162*>(m.y + ((at + t) * m.heads + head) * m.value_size + c) =
          __floats2bfloat162_rn(left, right);
    }
    if (begin + kTile < rows) __syncthreads();
  }
  // Behind the last exchange all blocks have read the past; v channels have no other reader.
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    if (channel[i] < 0 || (rank != 0 && tid + i * kThreads < 2 * kKeys)) continue;
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      m.conv_state[(static_cast<int64_t>(slot) * 3 + j) * m.channels + channel[i]] = past[i][j];
    }
  }
}

template <int kRows, int kWarps>
void queue(Context& cx, const DeltaMixerArgs& m, bool short_only) {
  constexpr int kColumns = 8 * kWarps;
  constexpr size_t kShared = sizeof(float) * kTile * (2 * 16 * kRows + kColumns);
  const int slices = (m.value_size + kColumns - 1) / kColumns, cluster = slices * (m.heads / m.key_heads);
  NIBBLE_CHECK(cluster <= 8);
  const dim3 grid(static_cast<unsigned>(cluster), static_cast<unsigned>(m.key_heads),
                  static_cast<unsigned>(m.sequences));
  launch_clusters(cx, "delta_mixer", delta_step<kRows, kWarps>, grid, dim3(static_cast<unsigned>(cluster)),
                  dim3(32 * kWarps), kShared, m, slices, short_only);
}

template <int kRows>
void queue(Context& cx, const DeltaMixerArgs& m, bool short_only) {
  // Narrow slices for the most blocks, as far as a cluster of 8 reaches.
  if ((m.value_size + 31) / 32 * (m.heads / m.key_heads) <= 8) {
    queue<kRows, 4>(cx, m, short_only);
  } else {
    queue<kRows, 8>(cx, m, short_only);
  }
}

}  // namespace

void delta_mixer_steps(Context& cx, const DeltaMixerArgs& m, bool short_only) {
  NIBBLE_CHECK(m.key_size <= 256 && m.value_size <= 256);
  if (m.key_size <= 16) {
    queue<1>(cx, m, short_only);
  } else if (m.key_size <= 128) {
    queue<8>(cx, m, short_only);
  } else {
    queue<16>(cx, m, short_only);
  }
}

}  // namespace nibble::ops
