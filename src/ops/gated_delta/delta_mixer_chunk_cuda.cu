// The chunked (WY) form, after S. Yang et al., "Gated Delta Networks" (arXiv 2412.06464). Within a chunk of 64 rows,
// with G the running sum of g, S the state before it and rows i, j:
//   A[i,j] = beta_i exp(G_i - G_j) <k_i,k_j>  for j < i, else 0;      T = (I + A)^-1
//   W = T diag(beta exp(G)) K;    U = T diag(beta) V;    D = U - W S          (D: what the rows write)
//   y_i = exp(G_i) S^T q_i + sum_{j<=i} exp(G_i - G_j) <q_i,k_j> D_j          (q carries the scale)
//   S  <- exp(G_63) S + sum_i exp(G_63 - G_i) k_i D_i'
// Exponents are differences first: every exponential lies in [0,1]. A last chunk is filled with rows of k = v = 0, g =
// 0. Four kernels per window of chunks: operands, W and U (all chunks at once), states and D (one chunk after the
// other), y (all chunks at once). A, T and S are f32, T by substitution
// in blocks of 16 rows and products of blocks; the operands of products are BF16.
#include <algorithm>

#include "ops/gated_delta/delta_mixer_chunk_cuda.cuh"

namespace nibble::ops {

void delta_mixer_chunks(Context& cx, const DeltaMixerArgs& m, const DeltaWindows& windows) {
  const Arena::Scope scope(cx.arena);
  const auto take = [&](int heads, int64_t elements) {
    return cx.arena.take(DType::bf16, {windows.window, heads, elements}).bf16();
  };
  delta::Tiles tiles{};
  tiles.q = take(m.key_heads, kDeltaRowTile);
  tiles.k = take(m.key_heads, kDeltaRowTile);
  tiles.vw = take(m.heads, kDeltaRowTile);
  tiles.ud = take(m.heads, kDeltaColumnTile);
  tiles.state = take(m.heads, kDeltaStateTile);
  tiles.sum = cx.arena.f32({windows.window, m.heads, kDeltaChunk}).f32();
  tiles.beta = cx.arena.f32({windows.window, m.heads, kDeltaChunk}).f32();
  for (int64_t first = 0; first < windows.chunks; first += windows.window) {
    const int at = static_cast<int>(first), chunks = static_cast<int>(std::min(windows.window, windows.chunks - first));
    delta::queue_operands(cx, m, tiles, at, chunks);
    delta::queue_solve(cx, m, tiles, at, chunks);
    delta::queue_states(cx, m, tiles, at, chunks);
    delta::queue_outputs(cx, m, tiles, at, chunks);
  }
}

}  // namespace nibble::ops
