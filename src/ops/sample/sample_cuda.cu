// A row is the work of a cluster of eight blocks, each with an eighth of the ids, or of one block where a GPU has no
// clusters. Cuts and draws are places in the order of likelihood, found by histograms that these blocks add up: first
// over 2048 steps of 1/64 in the logarithm of the share. Where the steps up to the first cut hold few ids, as they do
// for top_k = 20, one block sorts these; else nothing is sorted, and histograms go on over the bits of the logit within
// the step where a place lies.
#include <cooperative_groups.h>

#include "ops/sample/best.cuh"
#include "ops/sample/sample_backends.h"
#include "tensor/hopper.cuh"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

namespace cg = cooperative_groups;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 2 * kThreads;
constexpr float kBinsPerUnit = 64;  // 32 units of the logarithm in all: candidates reach 30.5
constexpr int kTiles = 512;         // of kThreads ids, in the longest row
constexpr int kShortList = kThreads;

/// The blocks of a row: a cluster, or a single one.
struct Cluster {
  static constexpr int kBlocks = 8;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900  // cooperative_groups has no clusters elsewhere
  static __device__ void sync() {
    cg::this_cluster().sync();
  }
  static __device__ unsigned rank() {
    return cg::this_cluster().block_rank();
  }
  /// This place in the shared memory of another block.
  template <class T>
  static __device__ T* in_block(T* place, unsigned block) {
    return cg::this_cluster().map_shared_rank(place, block);
  }
#endif
};
struct Single {
  static constexpr int kBlocks = 1;
  static __device__ void sync() { __syncthreads(); }
  static __device__ unsigned rank() { return 0; }
  template <class T>
  static __device__ T* in_block(T* place, unsigned) {
    return place;
  }
};

/// Weights are added as two halves: shared memory adds 32 bits at a time.
struct Histogram {
  uint32_t count[kBins], low[kBins], high[kBins];
};

/// Where the weight (or the number) of the likeliest reaches what was asked for.
struct Place {
  uint64_t weight_before;
  uint32_t count_before, count_with;  // without and with the bin
  int bin;
};

template <class Blocks>
struct Shared {
  static constexpr int kOwnTiles = kTiles / Blocks::kBlocks;
  Histogram histogram;
  uint64_t tiles[kOwnTiles], warps[kWarps], sum;
  Best warp_best[kWarps], best;
  Place place;
  uint64_t list[kShortList];  // likelihood_order and id, of the cluster's first block
  int listed;
};

struct Row {
  const float* logits;
  const uint8_t* allowed;
  const uint16_t* seen;
  SampleRule rule;
  float best;

  __device__ float logit(int i) const {
    if (allowed != nullptr && allowed[i] == 0) return -INFINITY;
    const float x = logits[i];
    if (seen == nullptr) return x;
    return penalised(x, rule, seen[i] != 0, seen[i] & ~kSeenInPrompt);
  }
  __device__ uint64_t weight(float x) const { return sample_weight(log_share(x, best, rule)); }
  __device__ bool candidate(float x) const { return is_candidate(x, best, rule); }
  __device__ int bin(float x) const {
    return min(static_cast<int>(mul_rn(-log_share(x, best, rule), kBinsPerUnit)), kBins - 1);
  }
};

/// The sum over the threads below, and of all in s.sum. Every thread of the block calls it.
template <class Blocks>
__device__ uint64_t sum_before(uint64_t mine, Shared<Blocks>& s) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  uint64_t up_to = mine;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint64_t other = __shfl_up_sync(0xFFFFFFFF, up_to, step);
    if (lane >= step) up_to += other;
  }
  if (lane == 31) s.warps[warp] = up_to;
  __syncthreads();
  if (warp == 0) {
    uint64_t sums = s.warps[lane];
    const uint64_t own = sums;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const uint64_t other = __shfl_up_sync(0xFFFFFFFF, sums, step);
      if (lane >= step) sums += other;
    }
    s.warps[lane] = sums - own;
    if (lane == 31) s.sum = sums;
  }
  __syncthreads();
  const uint64_t before = s.warps[warp] + up_to - mine;
  __syncthreads();  // the next call writes s.warps
  return before;
}

template <class Blocks>
class Search {
 public:
  __device__ Search(Shared<Blocks>& s, const Row& row, int begin, int end)
      : s_(s), row_(row), begin_(begin), end_(end) {
    clear();
    for (int i = begin_ + static_cast<int>(threadIdx.x); i < end_; i += kThreads) {
      const float x = row_.logit(i);
      if (row_.candidate(x)) add(row_.bin(x), row_.weight(x));
    }
    steps_ = merged();
    weight_ = s_.sum;
    count_ = count_sum_;
  }

  __device__ uint64_t weight() const { return weight_; }  // of all candidates
  __device__ uint64_t count() const { return count_; }
  /// The step where the candidates reach `target` in weight, or in number.
  __device__ Place step(uint64_t target, bool in_number) { return place(steps_, target, in_number); }

  /// The logit, as its likelihood_order, of the first id up to and with which the candidates have `target` in weight,
  /// or in number; and what the ids of larger logits have. 1 <= target <= what all have.
  __device__ uint32_t reach(uint64_t target, bool in_number, uint64_t& weight_before, uint64_t& count_before) {
    const Place step = place(steps_, target, in_number);
    weight_before = step.weight_before;
    count_before = step.count_before;
    uint32_t order = 0, known = 0;
    for (const int shift : {21, 10, 0}) {  // digits of 11, 11 and 10 bits
      clear();
      for (int i = begin_ + static_cast<int>(threadIdx.x); i < end_; i += kThreads) {
        const float x = row_.logit(i);
        if (!row_.candidate(x) || row_.bin(x) != step.bin) continue;
        const uint32_t o = likelihood_order(x);
        if ((o & known) == order) add(static_cast<int>((o & ~known) >> shift), row_.weight(x));
      }
      const Bins digits = merged();
      const Place digit = place(digits, target - (in_number ? count_before : weight_before), in_number);
      weight_before += digit.weight_before;
      count_before += digit.count_before;
      order |= static_cast<uint32_t>(digit.bin) << shift;
      known = ~0u << shift;
    }
    return order;
  }

 private:
  /// What all blocks have in two neighbouring bins, this thread's, and in all before them.
  struct Bins {
    uint64_t weight_before, weight[2];
    uint32_t count_before, count[2];
  };

  __device__ void clear() {
    auto* words = reinterpret_cast<uint32_t*>(&s_.histogram);
    for (int i = static_cast<int>(threadIdx.x); i < 3 * kBins; i += kThreads) words[i] = 0;
    __syncthreads();
  }
  __device__ void add(int bin, uint64_t weight) {
    atomicAdd(&s_.histogram.count[bin], 1u);
    const auto low = static_cast<uint32_t>(weight);
    const uint32_t old = atomicAdd(&s_.histogram.low[bin], low);
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + (old + low < old ? 1 : 0);
    if (high != 0) atomicAdd(&s_.histogram.high[bin], high);
  }
  __device__ Bins merged() {
    Blocks::sync();
    Bins bins{};
    for (unsigned block = 0; block < Blocks::kBlocks; ++block) {
      const Histogram& h = *Blocks::in_block(&s_.histogram, block);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int bin = 2 * static_cast<int>(threadIdx.x) + i;
        bins.weight[i] += static_cast<uint64_t>(h.high[bin]) << 32 | h.low[bin];
        bins.count[i] += h.count[bin];
      }
    }
    bins.count_before = static_cast<uint32_t>(sum_before(bins.count[0] + bins.count[1], s_));
    count_sum_ = s_.sum;
    __syncthreads();  // s.sum has been read
    bins.weight_before = sum_before(bins.weight[0] + bins.weight[1], s_);
    Blocks::sync();  // the others have read this block's histogram
    return bins;
  }
  __device__ Place place(const Bins& bins, uint64_t target, bool in_number) {
    uint64_t weight = bins.weight_before;
    uint32_t count = bins.count_before;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint64_t from = in_number ? count : weight, size = in_number ? bins.count[i] : bins.weight[i];
      if (from < target && target <= from + size) {
        s_.place = {weight, count, count + bins.count[i], 2 * static_cast<int>(threadIdx.x) + i};
      }
      weight += bins.weight[i];
      count += bins.count[i];
    }
    __syncthreads();
    const Place found = s_.place;
    __syncthreads();
    return found;
  }

  Shared<Blocks>& s_;
  const Row& row_;
  const int begin_, end_;
  uint64_t weight_ = 0, count_ = 0, count_sum_ = 0;
  Bins steps_;
};

/// The first id up to and with which the ids in ascending order have more than `target` of what size(id) says; -1 in
/// all threads but the one that found it.
template <class Blocks, class Size>
__device__ int walk(Shared<Blocks>& s, int begin, int end, uint64_t target, Size size) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int tiles = (end - begin + kThreads - 1) / kThreads;
  for (int tile = warp; tile < s.kOwnTiles; tile += kWarps) {
    uint64_t sum = 0;
    const int from = begin + tile * kThreads, to = min(from + kThreads, end);
    for (int i = from + lane; i < to; i += 32) sum += size(i);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, step);
    if (lane == 0) s.tiles[tile] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    s.sum = 0;
    for (int tile = 0; tile < tiles; ++tile) s.sum += s.tiles[tile];
  }
  Blocks::sync();
  for (unsigned block = 0; block < Blocks::rank(); ++block) {
    const uint64_t sum = *Blocks::in_block(&s.sum, block);
    target = target >= sum ? target - sum : ~uint64_t{0};
    if (target == ~uint64_t{0}) break;
  }
  const bool here = target < s.sum;
  Blocks::sync();  // the sums have been read
  if (!here) return -1;
  int tile = 0;
  for (; tile < tiles - 1 && target >= s.tiles[tile]; ++tile) target -= s.tiles[tile];
  const int i = begin + tile * kThreads + static_cast<int>(threadIdx.x);
  const uint64_t mine = i < end ? size(i) : 0, before = sum_before(mine, s);
  return before <= target && target < before + mine ? i : -1;
}

/// Keys in ascending order, one per thread.
__device__ void sort_list(uint64_t (&list)[kShortList]) {
  const int i = static_cast<int>(threadIdx.x);
  for (int run = 2; run <= kShortList; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      const int other = i ^ step;
      if (i < other && (list[i] > list[other]) == ((i & run) == 0)) {
        const uint64_t key = list[i];
        list[i] = list[other];
        list[other] = key;
      }
      __syncthreads();
    }
  }
}

/// The draw where the candidates of all steps up to `last` fit a list, which the first block sorts; `total` is the
/// weight of all candidates. -1 in all threads but one.
template <class Blocks>
__device__ int draw_from_list(Shared<Blocks>& s, const Row& row, int begin, int end, int last, bool few,
                              uint64_t total) {
  const auto thread = static_cast<int>(threadIdx.x);
  s.list[thread] = ~uint64_t{0};
  if (thread == 0) s.listed = 0;
  Blocks::sync();
  uint64_t* const list = Blocks::in_block(s.list, 0);
  int* const listed = Blocks::in_block(&s.listed, 0);
  for (int i = begin + thread; i < end; i += kThreads) {
    const float x = row.logit(i);
    if (!row.candidate(x) || row.bin(x) > last) continue;
    list[atomicAdd(listed, 1)] = static_cast<uint64_t>(likelihood_order(x)) << 32 | static_cast<uint32_t>(i);
  }
  Blocks::sync();
  if (Blocks::rank() != 0) return -1;
  sort_list(s.list);
  const uint64_t key = s.list[thread];
  const bool kept = thread < s.listed && (!few || thread < row.rule.top_k);
  const uint64_t mine = kept ? row.weight(logit_of_order(static_cast<uint32_t>(key >> 32))) : 0;
  const uint64_t before = sum_before(mine, s);
  if (few) total = s.sum;
  if (row.rule.top_p < 1) {
    const uint64_t need = weight_for_top_p(row.rule.top_p, total);
    __syncthreads();  // s.sum has been read
    if (before < need && need <= before + mine) s.sum = before + mine;
    __syncthreads();
    total = s.sum;
  }
  const uint64_t drawn = draw_below(row.rule, total);
  return before <= drawn && drawn < before + mine ? static_cast<int>(key & 0xFFFFFFFF) : -1;
}

/// The id that a rule with a temperature draws; -1 in all threads but one.
template <class Blocks>
__device__ int draw(Shared<Blocks>& s, const Row& row, int begin, int end) {
  Search search(s, row, begin, end);
  uint64_t total = search.weight(), weight_before = 0, count_before = 0;
  const auto weight_of = [&](uint32_t order) { return row.weight(logit_of_order(order)); };
  const auto k = static_cast<uint64_t>(row.rule.top_k);
  const bool few = k > 0 && k < search.count();
  if (few || row.rule.top_p < 1) {
    const Place cut = search.step(few ? k : weight_for_top_p(row.rule.top_p, total), few);
    if (cut.count_with <= kShortList) return draw_from_list(s, row, begin, end, cut.bin, few, total);
  }
  if (few) {
    const uint32_t order = search.reach(k, true, weight_before, count_before);
    total = weight_before + (k - count_before) * weight_of(order);
  }
  if (row.rule.top_p < 1) {
    const uint64_t need = weight_for_top_p(row.rule.top_p, total);
    const uint64_t each = weight_of(search.reach(need, false, weight_before, count_before));
    total = weight_before + (need - weight_before + each - 1) / each * each;
  }
  const uint64_t drawn = draw_below(row.rule, total);
  if (!few && !(row.rule.top_p < 1)) {
    return walk(s, begin, end, drawn, [&](int i) {
      const float x = row.logit(i);
      return row.candidate(x) ? row.weight(x) : 0;
    });
  }
  const uint32_t order = search.reach(drawn + 1, false, weight_before, count_before);
  const uint64_t equal_before = (drawn - weight_before) / weight_of(order);
  return walk(s, begin, end, equal_before, [&](int i) {
    const float x = row.logit(i);
    return static_cast<uint64_t>(row.candidate(x) && likelihood_order(x) == order ? 1 : 0);
  });
}

template <class Blocks>
__device__ void sample_row(const float* logits, const uint8_t* allowed, SampleRule* rules, uint16_t* seen,
                           int vocabulary, int32_t* ids, int32_t* position) {
  __shared__ Shared<Blocks> s;
  const auto t = static_cast<int64_t>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int size = (vocabulary + Blocks::kBlocks - 1) / Blocks::kBlocks;
  const int begin = min(static_cast<int>(Blocks::rank()) * size, vocabulary);
  const int end = min(begin + size, vocabulary);
  wait_for_predecessor();
  let_successor_start();
  Row row{logits + t * vocabulary, allowed, nullptr, rules[t], 0};
  uint16_t* const counts = row.rule.seen < 0 ? nullptr : seen + static_cast<int64_t>(row.rule.seen) * vocabulary;
  row.seen = counts;

  Best best{0, -1};
  for (int i = begin + thread; i < end; i += kThreads) {
    if (allowed == nullptr || allowed[i] != 0) best = better(best, {row.logit(i), i});
  }
  best = warp_best(best);
  if (lane == 0) s.warp_best[warp] = best;
  __syncthreads();
  if (thread == 0) {
    for (int w = 1; w < kWarps; ++w) best = better(best, s.warp_best[w]);
    s.best = best;
  }
  Blocks::sync();
  best = {0, -1};
  for (unsigned block = 0; block < Blocks::kBlocks; ++block) best = better(best, *Blocks::in_block(&s.best, block));

  row.best = best.value;
  // An infinite logit leaves nothing to draw from.
  const bool likeliest = row.rule.temperature == 0 || !(row.best < INFINITY);
  const int id = likeliest ? (thread == 0 && Blocks::rank() == 0 ? best.id : -1) : draw(s, row, begin, end);
  Blocks::sync();  // everybody has read what the one below changes, and the shared memory of others
  if (id < 0) return;
  ids[t] = id;
  if (position != nullptr) ++position[t];
  if (counts != nullptr) ++counts[id];
  ++rules[t].position;
}

template <class Blocks>
__global__ void __launch_bounds__(kThreads, 1)
    sample_rows(const float* logits, const uint8_t* allowed, SampleRule* rules, uint16_t* seen, int vocabulary,
                int32_t* ids, int32_t* position) {
  if constexpr (Blocks::kBlocks == 1 || hopper::kSm90) {
    sample_row<Blocks>(logits, allowed, rules, seen, vocabulary, ids, position);
  }
}

template <class Blocks>
void queue(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen, Tensor& ids,
           Tensor& position) {
  const auto T = static_cast<unsigned>(logits.dim(0));
  launch_clusters(cx, "sample", sample_rows<Blocks>, dim3(Blocks::kBlocks, T), dim3(Blocks::kBlocks), dim3(kThreads), 0,
                  logits.f32(), allowed.empty() ? nullptr : allowed.u8(), static_cast<SampleRule*>(rules.raw()),
                  seen.empty() ? nullptr : seen.u16(), static_cast<int>(logits.dim(1)), ids.i32(),
                  position.empty() ? nullptr : position.i32());
}

}  // namespace

void sample_cuda(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen, Tensor& ids,
                 Tensor& position) {
  if (!has_clusters(cx.device)) return sample_single_cuda(cx, logits, allowed, rules, seen, ids, position);
  queue<Cluster>(cx, logits, allowed, rules, seen, ids, position);
}

void sample_single_cuda(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& rules, Tensor& seen,
                        Tensor& ids, Tensor& position) {
  queue<Single>(cx, logits, allowed, rules, seen, ids, position);
}

}  // namespace nibble::ops
