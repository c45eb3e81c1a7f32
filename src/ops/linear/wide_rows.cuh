// The products of wide_rows_cuda.cu: which weights a warp multiplies, how they and the inputs come, and the order of
// sums.
#pragma once

#include <algorithm>

#include "ops/linear/device_weight.cuh"
#include "ops/linear/few_rows.cuh"
#include "tensor/hopper.cuh"

namespace nibble::ops::wide {

constexpr int kMaxOutputs = 4;
constexpr int kRing = 6;  // chunks of weights on their way to each warp
constexpr int kPieceBytes = kPairCodeBytes + kPairScaleBytes;
constexpr int kRoom = 227 << 10;  // shared memory of a block

struct Output {
  DeviceWeight weight;
  int first_tile;  // of all outputs
  void* y;
  bool y_is_bf16;
};
struct WideRows {
  Output outputs[kMaxOutputs];
  int count, tiles;      // of 16 rows, of all outputs (of gate alone for SwiGLU)
  const uint8_t* image;  // [chunks][2 units][kTokens][128 bytes]
  uint4* y_image;        // the same for the y of SwiGLU, or null
  int T, chunks;
  int items;  // of a cluster
  int ranks;  // blocks of a cluster
};

/// What blocks of one kernel look like.
template <int kTokenCount, int kGroupCount, bool kWithSwiglu>
struct Layout {
  static constexpr int kTokens = kTokenCount, kGroups = kGroupCount;
  static constexpr bool kSwiglu = kWithSwiglu;
  static constexpr int kRows = kGroups * 64, kWarps = kGroups * 4;
  static constexpr int kMultipliers = kGroups * 128, kThreads = kMultipliers + 128;
  /// Of a thread that multiplies, and of one that does not.
  [[maybe_unused]] static constexpr int kRegisters = kGroups == 3 ? 160 : 216, kOtherRegisters = kGroups == 3 ? 32 : 40;
  static_assert(kRegisters * kMultipliers + kOtherRegisters * 128 <= 65536);
  static constexpr int kOwnTiles = kSwiglu ? kWarps / 2 : kWarps;  // of an item
  static constexpr int kUnitBytes = kTokens * kUnitColumns * 2, kStageBytes = 2 * kUnitBytes;
  [[maybe_unused]] static constexpr int kSums = kTokens / 2;  // of a thread
  /// Tokens whose sums are in shared memory at a time.
  static constexpr int kTurn = kTokens > 64 ? 32 : kTokens;
  static constexpr int kPitch = kRows + 4;  // no two lanes of a warp write into one bank
  static constexpr int kStages =
      std::min(6, (kRoom - 1024 - kWarps * kRing * kPieceBytes - kTurn * kPitch * int{sizeof(float)}) / kStageBytes);
  static_assert(kStages >= 2);

  struct Shared {
    alignas(1024) uint8_t stages[kStages][kStageBytes];
    alignas(16) uint8_t ring[kWarps][kRing][kPieceBytes];
    alignas(16) float sums[kTurn][kPitch];
    uint64_t full[kStages], empty[kStages];
  };
  static constexpr size_t kSharedBytes = sizeof(Shared);
  static_assert(kSharedBytes <= kRoom);
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ inline const Output& output_of(const WideRows& p, int tile) {
  const Output* out = p.outputs;
  while (out + 1 < p.outputs + p.count && tile >= out[1].first_tile) ++out;
  return *out;
}

/// Where a block stands: its rank in the cluster, which gives it slices, and its cluster, which gives it items.
struct Place {
  int rank, first_slice, slices, cluster, clusters;

  __device__ explicit Place(const WideRows& p) {
    rank = hopper::cluster_rank();
    slices = kSlices / p.ranks;
    first_slice = rank * slices;
    cluster = static_cast<int>(blockIdx.x) / p.ranks;
    clusters = static_cast<int>(gridDim.x) / p.ranks;
  }
};

/// The stage that is next, and the parity of its phase.
struct StageAt {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void next(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// For one thread: brings the inputs of an item chunk by chunk.
template <class L>
__device__ void feed(const WideRows& p, const Place& place, typename L::Shared& s, StageAt& at) {
  for (int slice = place.first_slice; slice < place.first_slice + place.slices; ++slice) {
    for (int chunk = slice; chunk < p.chunks; chunk += kSlices) {
      // A barrier that has not ended a phase yet passes for one that has ended the phase before.
      hopper::barrier_wait(&s.empty[at.stage], at.parity ^ 1);
      hopper::barrier_expect(&s.full[at.stage], L::kStageBytes);
      hopper::bulk_copy(s.stages[at.stage], p.image + static_cast<int64_t>(chunk) * L::kStageBytes, L::kStageBytes,
                        &s.full[at.stage]);
      at.next(L::kStages);
    }
  }
}

/// The weights of a warp, tile after tile: kRing chunks before the products. A lane asks for the bytes that it will
/// read itself, so nothing waits for another lane.
template <class L>
class Weights {
 public:
  __device__ Weights(const WideRows& p, const Place& place, typename L::Shared& s)
      : p_(p), place_(place), warp_(threadIdx.x / 32), lane_(threadIdx.x % 32), slots_(s.ring[warp_][0] + lane_ * 16) {
    item_ = place.cluster;
    end_ = min(place.first_slice + place.slices, p.chunks);  // slices behind have no chunk
    if (place.first_slice >= end_) item_ = p.items;
    seek();
  }

  __device__ void ask() {
    if (item_ < p_.items) {
      const auto to = hopper::shared_address(slots_ + at_);
      const uint8_t* codes = codes_ + static_cast<int64_t>(chunk_) * kPairCodeBytes;
      const uint8_t* scales = scales_ + static_cast<int64_t>(chunk_) * kPairScaleBytes;
      asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(to), "l"(codes) : "memory");
      asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(to + 512), "l"(codes + 512) : "memory");
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to + scales_at()), "l"(scales) : "memory");
      chunk_ += kSlices;
      if (chunk_ >= p_.chunks) {
        chunk_ = ++slice_;
        if (slice_ == end_) {
          item_ += place_.clusters;
          seek();
        }
      }
    }
    copies_commit();
    at_ = at_ == (kRing - 1) * kPieceBytes ? 0 : at_ + kPieceBytes;
  }

  /// The oldest chunk that was asked for; the next ask() takes its place.
  __device__ Nvfp4Source::Chunk next() const {
    copies_wait<kRing - 1>();
    const uint8_t* const from = slots_ + at_;
    return {{*reinterpret_cast<const uint4*>(from), *reinterpret_cast<const uint4*>(from + 512)},
            *reinterpret_cast<const uint32_t*>(from + scales_at())};
  }

 private:
  __device__ int scales_at() const { return kPairCodeBytes - lane_ * 12; }  // from where a lane's codes are

  __device__ void seek() {
    if (item_ >= p_.items) return;
    slice_ = chunk_ = place_.first_slice;
    // A last item may reach beyond the weights: such tiles repeat the last one and are not stored.
    const int all = min(item_ * L::kOwnTiles + warp_ % L::kOwnTiles, p_.tiles - 1);
    const Output& out = L::kSwiglu ? p_.outputs[warp_ / L::kOwnTiles] : output_of(p_, all);
    const int64_t pair = static_cast<int64_t>(L::kSwiglu ? all : all - out.first_tile) * p_.chunks;
    codes_ = out.weight.data + pair * kPairCodeBytes + lane_ * 16;
    scales_ = out.weight.scales + pair * kPairScaleBytes + lane_ * 4;
  }

  const WideRows& p_;
  const Place& place_;
  int warp_, lane_;
  uint8_t* slots_;
  const uint8_t *codes_ = nullptr, *scales_ = nullptr;
  int item_, slice_ = 0, chunk_ = 0, end_, at_ = 0;
};

/// sums += the products of one slice.
template <class L>
__device__ void multiply_slice(const WideRows& p, int slice, Weights<L>& weights, StageAt& at, typename L::Shared& s,
                               float (&sums)[L::kSums]) {
  // A unit is decoded while the products of the one before run.
  uint32_t operands[Nvfp4Source::kUnits][4][4];
  int before = -1;  // the stage of the chunk before
  const auto give_back = [&] {
    if (threadIdx.x % 32 == 0) hopper::barrier_arrive(&s.empty[before]);
  };
#pragma unroll 1
  for (int chunk = slice; chunk < p.chunks; chunk += kSlices) {
    const Nvfp4Source::Chunk now = weights.next();
    const uint64_t columns = hopper::swizzled_rows(s.stages[at.stage]);  // counts in 16 bytes
#pragma unroll
    for (int unit = 0; unit < Nvfp4Source::kUnits; ++unit) {
      const Nvfp4Source::Scales scales = Nvfp4Source::unit_scales(now, unit);
#pragma unroll
      for (int step = 0; step < 4; ++step) Nvfp4Source::operand(now, unit, step, scales, operands[unit][step]);
      if (unit == 0) hopper::barrier_wait(&s.full[at.stage], at.parity);
      hopper::products_begin();
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        hopper::multiply(sums, operands[unit][step], columns + (unit * L::kUnitBytes + step * 32) / 16);
      }
      hopper::products_commit();
      if (unit + 1 == Nvfp4Source::kUnits) weights.ask();
      hopper::products_wait<1>();
      if (unit == 0 && before >= 0) give_back();
    }
    before = at.stage;
    at.next(L::kStages);
  }
  hopper::products_wait<0>();
  if (before >= 0) give_back();
}

/// The place in s.sums of the sum number i of a thread, in the turn that holds it.
template <class L>
__device__ inline float& place_of(typename L::Shared& s, int i) {
  const int lane = threadIdx.x % 32, token = i / 4 * 8 + lane % 4 * 2 + i % 2;
  return s.sums[token % L::kTurn][threadIdx.x / 32 * 16 + i % 4 / 2 * 8 + lane / 4];
}

/// All slices of a block: up to 64 tokens as the tree wants them, where the sum of two waits in registers and that of
/// four in shared memory.
template <class L>
__device__ void multiply_slices(const WideRows& p, Weights<L>& weights, StageAt& at, typename L::Shared& s,
                                float (&sums)[L::kSums]) {
  const Place place(p);
  const auto clear = [](float(&x)[L::kSums]) {
#pragma unroll
    for (float& value : x) value = 0;
  };
  const auto multiply = [&](int n, float(&x)[L::kSums]) {
    multiply_slice<L>(p, n < place.slices ? place.first_slice + n : p.chunks, weights, at, s, x);
  };
  if constexpr (L::kTokens > 64) {
    clear(sums);
#pragma unroll 1
    for (int n = 0; n < place.slices; ++n) multiply(n, sums);
  } else {
    float one[L::kSums], two[L::kSums];
    clear(two);
#pragma unroll 1
    for (int n = 0; n < place.slices; n += 2) {
      clear(one);
      multiply(n, one);
      clear(sums);
      multiply(n + 1, sums);
      // Choices instead of branches, which would cost copies of all these registers.
#pragma unroll
      for (int i = 0; i < L::kSums; ++i) {
        const float pair = one[i] + sums[i];
        sums[i] = n % 4 == 2 ? two[i] + pair : pair;
        two[i] = pair;
      }
      if (place.slices < 8) continue;
      if (n == 2) {
#pragma unroll
        for (int i = 0; i < L::kSums; ++i) place_of<L>(s, i) = sums[i];
      } else if (n == 6) {
#pragma unroll
        for (int i = 0; i < L::kSums; ++i) sums[i] += place_of<L>(s, i);
      }
    }
  }
}

#endif

}  // namespace nibble::ops::wide
