// The recurrence. A block owns a slice of a value head's columns: their part of S lies in registers from the first
// token to the last, so it travels through memory once in each direction. A warp owns 8 columns over all Dk rows: its
// lanes are 2 groups of 4 columns times 16 groups of kRows rows, and its sums need no other warp. The slices of all
// value heads of one key head form a cluster, because the rows of y are normed over whole heads and because q and k
// channels of the convolution are shared: only one block writes those back, after all have read them. GPUs without
// clusters give a block a whole value head, and a kernel behind it writes the convolution's past.
#include "ops/gated_delta/delta_mixer_step_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kTile = kDeltaStepRows;  // tokens between two exchanges of a cluster
constexpr int kMaxPartials = 256 / 8;  // sums over 8 columns of a head

/// Stores into the same place of another block's shared memory.
__device__ inline void store_at(float* place, int rank, float value) {
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(hopper::address_in_block(place, rank)), "f"(value) : "memory");
}

/// Dk <= 16 * kRows. grid (slices * Hv/Hk, Hk, sequences), with kClusters a cluster along x, else one slice; dynamic
/// shared memory: kRowBytes.
template <int kRows, int kWarps, bool kClusters>
__global__ void __launch_bounds__(32 * kWarps, kRows <= 8 && kWarps <= 16 ? 16 / kWarps : 1)
    delta_step(DeltaMixerArgs m, int slices, bool short_only) {
  if constexpr (kClusters && !hopper::kSm90) return;
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
  if constexpr (kClusters) hopper::cluster_begin();  // others may store into this block

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
          const float y = conv_silu(tap[i], past[i], x);
          if (tid + i * kThreads < kRow) row[t + j][tid + i * kThreads] = y;
        }
      }
    }
    if (tid < n) {
      token[tid].decay = expf(delta_decay(a, a_log, dt_bias));
      token[tid].beta = delta_strength(b);
    }
    __syncthreads();

    for (int t = warp; t < n; t += kWarps) {
      measure_keys<kKeys>(m, row[t], row[t] + kKeys, token[t]);
    }
    __syncthreads();

    if (active) {
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
        float write[4];
        meet_columns(key_sum, query_sum, c, &row[t][2 * kKeys + local], write);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) S[i][j] = fmaf(k[i], write[j], c.decay * S[i][j]);
        }
      }
      __syncwarp();
    }
    if (kClusters && begin == 0) hopper::cluster_wait();
    float(*const sums)[kMaxPartials] = squares[begin / kTile % 2];
    if (active && lane < n) {
      float sum = 0;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float x = row[lane][2 * kKeys + warp * 8 + j];
        sum = fmaf(x, x, sum);
      }
      float* const place = &sums[lane][slice * kWarps + warp];
      if constexpr (kClusters) {
        const int leader = rank - slice;
        for (int peer = leader; peer < leader + slices; ++peer) store_at(place, peer, sum);
      } else {
        *place = sum;
      }
    }
    if constexpr (kClusters) hopper::cluster_arrive();
    if (active && begin + kTile >= rows) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int key = group * kRows + i;
        if (key < m.key_size) {
          *reinterpret_cast<float4*>(state + key * m.value_size) = {S[i][0], S[i][1], S[i][2], S[i][3]};
        }
      }
    }
    if constexpr (kClusters) {
      hopper::cluster_wait();
    } else {
      __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int t = (tid + i * kThreads) / (kColumns / 2), c = slice * kColumns + out_column;
      if (t >= n || c >= m.value_size) continue;
      const float2 x = *reinterpret_cast<const float2*>(&row[t][2 * kKeys + out_column]);
      *reinterpret_cast<__nv_bfloat162*>(m.y + ((at + t) * m.heads + head) * m.value_size + c) =
          gated_pair(m, sums[t], x, norm, z[i]);
    }
    if (begin + kTile < rows) __syncthreads();
  }
  if constexpr (kClusters) {
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
}

/// The last rows of each sequence become the convolution's past.
__global__ void move_past(DeltaMixerArgs m) {
  const int channel = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), sequence = blockIdx.y;
  wait_for_predecessor();
  let_successor_start();
  const int64_t first = m.begin[sequence], slot = m.slot[sequence];
  const int rows = static_cast<int>(m.begin[sequence + 1] - first);
  if (slot < 0 || rows <= 0 || channel >= m.channels) return;
  float* const past = m.conv_state + slot * 3 * m.channels + channel;
  const bool fresh = m.position[sequence] == 0;
  float next[3];
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    const int row = rows - 3 + j;
    next[j] = row >= 0 ? bf16_to_f32(m.mix[(first + row) * m.channels + channel])
              : fresh  ? 0.0f
                       : past[(row + 3) * m.channels];
  }
#pragma unroll
  for (int j = 0; j < 3; ++j) past[j * m.channels] = next[j];
}

/// Of a tile of rows in shared memory.
template <int kRows, int kWarps>
constexpr size_t kRowBytes = size_t{kTile * sizeof(float)} * (2 * 16 * kRows + 8 * kWarps);

template <int kRows, int kWarps>
void queue(Context& cx, const DeltaMixerArgs& m, bool short_only) {
  constexpr int kColumns = 8 * kWarps;
  const int slices = (m.value_size + kColumns - 1) / kColumns, cluster = slices * (m.heads / m.key_heads);
  NIBBLE_CHECK(cluster <= 8);
  const dim3 grid(static_cast<unsigned>(cluster), static_cast<unsigned>(m.key_heads),
                  static_cast<unsigned>(m.sequences));
  launch_clusters(cx, "delta_mixer", delta_step<kRows, kWarps, true>, grid, dim3(static_cast<unsigned>(cluster)),
                  dim3(32 * kWarps), kRowBytes<kRows, kWarps>, m, slices, short_only);
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

template <int kRows, int kWarps>
void queue_heads(Context& cx, const DeltaMixerArgs& m) {
  const dim3 grid(static_cast<unsigned>(m.heads / m.key_heads), static_cast<unsigned>(m.key_heads),
                  static_cast<unsigned>(m.sequences));
  launch(cx, "delta_mixer", delta_step<kRows, kWarps, false>, grid, dim3(32 * kWarps), kRowBytes<kRows, kWarps>, m, 1,
         false);
}

}  // namespace

void delta_mixer_heads(Context& cx, const DeltaMixerArgs& m) {
  NIBBLE_CHECK(m.key_size <= 256 && m.value_size <= 256);
  if (m.value_size <= 128 && m.key_size <= 16) {
    queue_heads<1, 16>(cx, m);
  } else if (m.value_size <= 128 && m.key_size <= 128) {
    queue_heads<8, 16>(cx, m);
  } else {
    queue_heads<16, 32>(cx, m);
  }
  constexpr int kThreads = 256;
  launch(cx, "delta_mixer", move_past,
         dim3(static_cast<unsigned>((m.channels + kThreads - 1) / kThreads), static_cast<unsigned>(m.sequences)),
         dim3(kThreads), 0, m);
}

void delta_mixer_steps(Context& cx, const DeltaMixerArgs& m, bool short_only) {
  NIBBLE_CHECK(m.key_size <= 256 && m.value_size <= 256);
  // From a block for every third multiprocessor on, whole heads per block are faster.
  const bool many = 3 * m.sequences * m.heads >= multiprocessors(cx.device);
  if (many && m.longest == 1 && m.key_size == 128 && m.value_size == 128) {
    delta_mixer_tokens(cx, m);
  } else if (m.key_size <= 16) {
    queue<1>(cx, m, short_only);
  } else if (m.key_size <= 128) {
    queue<8>(cx, m, short_only);
  } else {
    queue<16>(cx, m, short_only);
  }
}

}  // namespace nibble::ops
