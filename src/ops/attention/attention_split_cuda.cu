// Attention of the short sequences (decode, verify): the keys are split into pieces of kKeyPiece counted from position
// 0, a second kernel adds the pieces up. What is split, and the order of every sum, depends on a row's position alone.
//
// The query heads of a kv head and the rows of its sequence are the rows of one matrix, token by token, of which up to
// 16 share a pass over the keys. A block has a piece, each of its warps every fourth 16 keys of it, with a maximum and
// sums of its own that meet at the end. Keys and values are the tall operands of both products and the few rows the
// narrow ones: S^T = K Q^T, y^T = V^T P^T. They come through shared memory, where kUnits times 16 keys or values of
// each warp are on their way, across the borders of pieces: no warp waits for another before the end of a piece.
#include "ops/attention/attention_cuda.cuh"
#include "tensor/hopper.cuh"

namespace nibble::ops {
namespace {

constexpr int kD = kFastSize, kWarps = 4, kThreads = kWarps * 32;
constexpr int kKeys = 16, kTile = kWarps * kKeys;                  // of a warp and of a block at a time
constexpr int kRowBytes = kD * 2, kUnitBytes = kKeys * kRowBytes;  // a warp's keys, or values
constexpr int kUnits = 2;                                          // of a warp on their way
constexpr int kBlocksPerMultiprocessor = 2;
static_assert(kKeyPiece % kTile == 0 && kD == 2 * kThreads);
static_assert(8 * kD * sizeof(float) <= kUnitBytes, "sums of eight rows meet where values were");

/// Rows of 512 bytes lie in shared memory with their 16-byte chunks exchanged by the row's last three bits, so that
/// neither rows nor chunks meet in a bank.
__device__ int chunk_place(int row, int chunk) {
  return row * kRowBytes + (chunk ^ row % 8) * 16;
}

/// One piece of the keys for up to kOctets * 8 rows of one kv head of one sequence.
struct Item {
  Sequence sequence;
  int kv_head, row, piece;  // row: the first, of rows * group
  int last;                 // position of the sequence's last row

  __device__ int begin() const { return piece * static_cast<int>(kKeyPiece); }
  __device__ int end() const { return min(begin() + static_cast<int>(kKeyPiece), last + 1); }
};

/// The work of all sequences in one list: how many items lie before each.
template <int kOctets>
struct WorkList {
  const AttentionOperands& a;
  Sequence* sequences;  // [sequences] in shared memory
  int* before;          // [sequences + 1]

  __device__ int row_tiles(int rows) const { return (rows * (a.heads / a.kv_heads) + kOctets * 8 - 1) / (kOctets * 8); }
  __device__ int pieces(int last) const { return min(last / static_cast<int>(kKeyPiece) + 1, a.pieces.count); }
  __device__ int items(const Sequence& s) const {
    if (s.slot < 0 || s.rows <= 0 || s.rows > a.row_bound) return 0;
    return row_tiles(s.rows) * pieces(s.position + s.rows - 1) * a.kv_heads;
  }

  /// By the first warp.
  __device__ void fill() const {
    int total = 0;
    for (int first = 0; first < a.sequences; first += 32) {
      const int index = first + lane_id();
      int count = 0;
      if (index < a.sequences) {
        sequences[index] = sequence_at(a, index);
        count = items(sequences[index]);
      }
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int left = __shfl_up_sync(0xFFFFFFFF, count, step);
        if (lane_id() >= step) count += left;
      }
      if (index < a.sequences) before[index + 1] = total + count;
      total += __shfl_sync(0xFFFFFFFF, count, 31);
    }
    if (lane_id() == 0) before[0] = 0;
  }
  __device__ int total() const {
    return before[a.sequences];
  }
  __device__ Item find(int item) const {
    int low = 0, high = a.sequences;  // before[low] <= item < before[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (before[middle] <= item ? low : high) = middle;
    }
    const Sequence sequence = sequences[low];
    const int rest = item - before[low], tiles = row_tiles(sequence.rows);
    return {sequence, rest / tiles % a.kv_heads, rest % tiles * kOctets * 8, rest / tiles / a.kv_heads,
            sequence.position + sequence.rows - 1};
  }
};

/// The keys and values of a warp's items by turns, unit by unit, kUnits of them on their way.
template <int kOctets>
class Units {
 public:
  __device__ Units(const WorkList<kOctets>& work, uint8_t* ring)
      : work_(work), ring_(ring), number_(static_cast<int>(blockIdx.x)) {
    seek();
  }

  /// Whether the next unit has positions that the kernel before writes.
  __device__ bool next_is_new() const {
    return number_ < work_.total() && min(key_ + kKeys - 1, item_.last) >= item_.sequence.position;
  }
  /// Asks for the next unit, in the place of the one that was read last.
  __device__ void ask() {
    if (number_ < work_.total()) {
      const AttentionOperands& a = work_.a;
      const bf16* const from =
          (values_ ? a.values : a.keys) + cache_at(a, item_.sequence.slot, 0, item_.kv_head) + lane_id() * 8;
      uint8_t* const to = ring_ + warp_id() * (kUnits * kUnitBytes) + at_;
#pragma unroll
      for (int r = 0; r < kKeys; ++r) {
        // Beyond the last position lies what was never written: the last one is read in its place, and masked.
        const int64_t key = min(key_ + r, item_.last);
        copy_async(hopper::shared_address(to + chunk_place(r, lane_id())), from + key * (a.kv_heads * kD));
      }
      values_ = !values_;
      if (!values_) key_ += kTile;
      if (!values_ && key_ - warp_id() * kKeys >= item_.end()) {
        number_ += static_cast<int>(gridDim.x);
        seek();
      }
    }
    copies_commit();
    at_ = at_ == (kUnits - 1) * kUnitBytes ? 0 : at_ + kUnitBytes;
  }
  /// The oldest unit, once it is there: its address.
  __device__ uint32_t next() const {
    copies_wait<kUnits - 1>();
    __syncwarp();
    return hopper::shared_address(ring_ + warp_id() * (kUnits * kUnitBytes) + at_);
  }
  /// The same place of a warp for other use, until ask().
  __device__ float* room(int warp) const {
    return reinterpret_cast<float*>(ring_ + warp * (kUnits * kUnitBytes) + at_);
  }

 private:
  __device__ void seek() {
    if (number_ >= work_.total()) return;
    item_ = work_.find(number_);
    key_ = item_.begin() + warp_id() * kKeys;
  }

  const WorkList<kOctets>& work_;
  uint8_t* ring_;
  int number_, key_ = 0, at_ = 0;
  bool values_ = false;
  Item item_{};
};

/// Rows 8 o + g of an item as the narrow operand: columns 16 step + {2c, 2c + 1} and those 8 further.
template <int kOctets>
struct Queries {
  uint32_t x[kOctets][kD / 16][2];

  __device__ void load(const AttentionOperands& a, const Item& item) {
    const int group = a.heads / a.kv_heads;
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      const int row = item.row + o * 8 + lane_id() / 4;
      const bool there = row < item.sequence.rows * group;
      const int64_t head =
          static_cast<int64_t>(item.sequence.begin + row / group) * a.heads + item.kv_head * group + row % group;
      const bf16* const from = a.q + (there ? head * kD : 0) + lane_id() % 4 * 2;
#pragma unroll
      for (int i = 0; i < kD / 8; ++i) {
        x[o][i / 2][i % 2] = there ? *reinterpret_cast<const uint32_t*>(from + i * 8) : 0;
      }
    }
  }
};

/// The largest, or the sum, of the lanes with the same c.
template <class Join>
__device__ float over_keys(float x, const Join& join) {
#pragma unroll
  for (int lane = 4; lane < 32; lane *= 2) x = join(x, __shfl_xor_sync(0xFFFFFFFF, x, lane));
  return x;
}

template <int kOctets>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    attend_piece(const __grid_constant__ AttentionOperands a) {
  extern __shared__ __align__(kRowBytes) uint8_t dynamic[];
  __shared__ float2 scales[kWarps][kOctets * 8];  // maximum of the scores of a warp and sum of its weights, of each row
  const int thread = threadIdx.x, warp = warp_id(), lane = lane_id(), g = lane / 4, c = lane % 4;
  const int group = a.heads / a.kv_heads;

  // The kernel before is `prepare`, which lets this one start when all before it is done: the batch's numbers and the
  // keys below a sequence's position are there, and may be read before the wait.
  auto* const sequences = reinterpret_cast<Sequence*>(dynamic + kWarps * kUnits * kUnitBytes);
  const WorkList<kOctets> work{a, sequences, reinterpret_cast<int*>(sequences + a.sequences)};
  if (warp == 0) work.fill();
  __syncthreads();
  bool waited = false;
  const auto wait_once = [&] {
    if (!waited) {
      wait_for_predecessor();
      let_successor_start();
    }
    waited = true;
  };
  Units<kOctets> units(work, dynamic);
#pragma unroll 1
  for (int i = 0; i < kUnits; ++i) {
    if (units.next_is_new()) wait_once();
    units.ask();
  }
  wait_once();

  int number = static_cast<int>(blockIdx.x);
  if (number >= work.total()) return;
  Item item = work.find(number);
  Queries<kOctets> queries;
  queries.load(a, item);
  while (true) {
    const Sequence& s = item.sequence;
    const bool more = number + static_cast<int>(gridDim.x) < work.total();
    const Item following = more ? work.find(number + static_cast<int>(gridDim.x)) : item;
    float y[kOctets][kD / 16][4] = {}, maximum[kOctets][2], sum[kOctets][2] = {};
    int position[kOctets][2];  // of the rows 8 o + 2c and the next
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        maximum[o][j] = -INFINITY;
        position[o][j] = s.position + (item.row + o * 8 + c * 2 + j) / group;
      }
    }

    const int end = item.end();
#pragma unroll 1
    for (int first = item.begin(); first < end; first += kTile) {
      float score[kOctets][2][4] = {};  // of the even steps and of the odd ones
      // Lane l names row l % 8 of matrix l / 8: eight keys, the eight behind them, and both for the next chunk.
      uint32_t at = units.next() + chunk_place(lane % 8 + lane / 8 % 2 * 8, lane / 16);
#pragma unroll
      for (int step = 0; step < kD / 16; ++step) {
        uint32_t keys[4];
        load_matrices(at ^ step * 32, keys);
#pragma unroll
        for (int o = 0; o < kOctets; ++o) mma_bf16(score[o][step % 2], keys, queries.x[o][step]);
      }
      __syncwarp();
      units.ask();
      if (kOctets == 1 && first + kTile >= end && more) queries.load(a, following);

      uint32_t weights[kOctets][2];
#pragma unroll
      for (int o = 0; o < kOctets; ++o) {
        float x[4];  // of keys g and g + 8, of two rows each
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = first + warp * kKeys + g + i / 2 * 8;
          const float product = __fmul_rn(score[o][0][i] + score[o][1][i], a.score_scale);
          x[i] = key <= position[o][i % 2] ? product : -INFINITY;
        }
        float keep[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const auto larger = [](float p, float q) { return fmaxf(p, q); };
          const float largest = fmaxf(maximum[o][j], over_keys(fmaxf(x[j], x[j + 2]), larger));
          const float base = largest == -INFINITY ? 0.0f : largest;
          keep[j] = exp2_fast(maximum[o][j] - base);
          maximum[o][j] = largest;
          x[j] = exp2_fast(x[j] - base);
          x[j + 2] = exp2_fast(x[j + 2] - base);
        }
        const uint32_t low = pack_bf16(x[0], x[1]), high = pack_bf16(x[2], x[3]);
        sum[o][0] = fmaf(sum[o][0], keep[0], __fadd_rn(low_bf16(low), low_bf16(high)));
        sum[o][1] = fmaf(sum[o][1], keep[1], __fadd_rn(high_bf16(low), high_bf16(high)));
        weights[o][0] = turn_matrix(low);
        weights[o][1] = turn_matrix(high);
        if (first == item.begin()) continue;
#pragma unroll
        for (int m = 0; m < kD / 16; ++m) {
#pragma unroll
          for (int e = 0; e < 4; ++e) y[o][m][e] *= keep[e % 2];
        }
      }

      // Eight values, their next chunk, and both of the eight values behind them.
      at = units.next() + chunk_place(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
      for (int m = 0; m < kD / 16; ++m) {
        uint32_t values[4];
        load_matrices_turned(at ^ m * 32, values);
#pragma unroll
        for (int o = 0; o < kOctets; ++o) mma_bf16(y[o][m], values, weights[o]);
      }
      if (first + kTile >= end) break;
      __syncwarp();
      units.ask();
    }

    // The warps meet: y^T turned into rows where the last values were.
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      __syncwarp();
      float* const own = units.room(warp);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float total = over_keys(sum[o][j], [](float p, float q) { return p + q; });
        if (g == 0) scales[warp][o * 8 + c * 2 + j] = make_float2(maximum[o][j], total);
#pragma unroll
        for (int i = 0; i < kD / 8; ++i) {
          own[(c * 2 + j) * kD + ((i * 8 + g) ^ c * 8)] = y[o][i / 2][i % 2 * 2 + j];
        }
      }
      __syncthreads();
      for (int r = 0; r < 8; ++r) {
        const int row = item.row + o * 8 + r;
        if (row >= s.rows * group) break;
        float largest = -INFINITY, total = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, scales[w][o * 8 + r].x);
        const float base = largest == -INFINITY ? 0.0f : largest;
        float2 out{};
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          const float2 scale = scales[w][o * 8 + r];
          const float factor = exp2_fast(scale.x - base);
          const float2 part = *reinterpret_cast<const float2*>(units.room(w) + r * kD + ((thread * 2) ^ r / 2 * 8));
          total = fmaf(factor, scale.y, total);
          out = {fmaf(factor, part.x, out.x), fmaf(factor, part.y, out.y)};
        }
        const int64_t head_row =
            (static_cast<int64_t>(s.index) * a.row_bound + row / group) * a.heads + item.kv_head * group + row % group;
        const int64_t to = head_row * a.pieces.count + item.piece;
        if (thread == 0) a.pieces.scale[to] = make_float2(largest, total);
        *reinterpret_cast<float2*>(a.pieces.y + to * kD + thread * 2) = out;
      }
      __syncthreads();
    }
    units.ask();
    if (!more) break;
    number += static_cast<int>(gridDim.x);
    item = following;
    if (kOctets > 1) queries.load(a, item);  // not earlier: registers
  }
}

template <int kOctets>
void launch_pieces(Context& cx, const AttentionOperands& a) {
  const int64_t rows = int64_t{a.row_bound} * (a.heads / a.kv_heads);
  const int64_t tiles = (rows + kOctets * 8 - 1) / (kOctets * 8);
  const int64_t items = a.sequences * tiles * a.kv_heads * a.pieces.count;
  const size_t numbers = static_cast<size_t>(a.sequences) * (sizeof(Sequence) + sizeof(int)) + sizeof(int);
  const size_t shared = kWarps * kUnits * kUnitBytes + numbers;
  const bool all_fit =
      shared + sizeof(float2) * kWarps * kOctets * 8 <= shared_memory_of_block(cx.device, kBlocksPerMultiprocessor);
  const int64_t most = (all_fit ? kBlocksPerMultiprocessor : 1) * multiprocessors(cx.device);
  launch(cx, "gated_attention: pieces", attend_piece<kOctets>, static_cast<unsigned>(std::min(items, most)), kThreads,
         shared, a);
}

}  // namespace

void attention_short(Context& cx, const AttentionOperands& a) {
  if (a.row_bound * (a.heads / a.kv_heads) <= 8) {
    launch_pieces<1>(cx, a);
  } else {
    launch_pieces<2>(cx, a);
  }
  attention_add_pieces(cx, a);
}

}  // namespace nibble::ops
