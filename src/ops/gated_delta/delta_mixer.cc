#include "ops/gated_delta/delta_mixer.h"

#include <algorithm>

#include "ops/gated_delta/delta_mixer_backends.h"
#include "tensor/dispatch.h"

namespace nibble::ops {
namespace {

void check(const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a, const Tensor& b,
           const DeltaMixerWeights& w, const Tensor& conv_state, const Tensor& S, const Tensor& y) {
  NIBBLE_CHECK(z.rank() == 3 && S.rank() == 4 && mix.rank() == 2);
  const int64_t T = z.dim(0), Hv = z.dim(1), Dv = z.dim(2), Dk = S.dim(2), channels = mix.dim(1);
  NIBBLE_CHECK(y.shape() == z.shape() && mix.dim(0) == T && S.dim(1) == Hv && S.dim(3) == Dv);
  NIBBLE_CHECK(Dk > 0 && Dk % 16 == 0 && Dv > 0 && Dv % 16 == 0);
  const int64_t keys = channels - Hv * Dv;
  NIBBLE_CHECK(keys > 0 && keys % (2 * Dk) == 0 && Hv % (keys / (2 * Dk)) == 0);
  NIBBLE_CHECK(a.shape() == Shape({T, Hv}) && b.shape() == a.shape());
  NIBBLE_CHECK(conv_state.shape() == Shape({S.dim(0), 3, channels}));
  NIBBLE_CHECK(w.conv.shape() == Shape({channels, 4}) && w.norm.shape() == Shape{Dv});
  NIBBLE_CHECK(w.a_log.shape() == Shape{Hv} && w.dt_bias.shape() == Shape{Hv});
  NIBBLE_CHECK(batch.begin.shape() == Shape{batch.sequences + 1} && batch.slot.shape() == Shape{batch.sequences} &&
               batch.position.shape() == batch.slot.shape());
}

}  // namespace

void delta_mixer(Context& cx, const Batch& batch, const Tensor& mix, const Tensor& z, const Tensor& a, const Tensor& b,
                 const DeltaMixerWeights& w, Tensor& conv_state, Tensor& S, Tensor& y) {
  check(batch, mix, z, a, b, w, conv_state, S, y);
  NIBBLE_DISPATCH(y.device(), delta_mixer, cx, batch, mix, z, a, b, w, conv_state, S, y);
}

DeltaWindows delta_windows(int64_t rows, int64_t sequences, int64_t longest, int64_t key_size, int64_t value_size) {
  if (longest <= kDeltaStepRows || key_size != kDeltaChunkSize || value_size != kDeltaChunkSize) return {};
  // Each of `many` sequences leaves at most 63 places of its last chunk empty.
  const int64_t many = std::min(sequences, rows / (kDeltaStepRows + 1));
  const int64_t chunks = (rows + many * (kDeltaChunk - 1)) / kDeltaChunk;
  constexpr int64_t kWindow = 32;  // 2048 rows: the work of a chunk and head a thousand times over fills a GPU
  return {.chunks = chunks, .window = std::min(chunks, kWindow)};
}

size_t delta_mixer_scratch_bytes(int64_t rows, int64_t sequences, int64_t longest, int64_t key_heads, int64_t heads,
                                 int64_t key_size, int64_t value_size) {
  const int64_t key = 2 * kDeltaRowTile * 2;                                       // q, k in bf16
  const int64_t value = (kDeltaRowTile + kDeltaColumnTile + kDeltaStateTile) * 2;  // v and W, U, state
  const int64_t gates = 2 * kDeltaChunk * 4;                                       // sum of g, beta in f32
  const int64_t window = delta_windows(rows, sequences, longest, key_size, value_size).window;
  return static_cast<size_t>(window * (key_heads * key + heads * (value + gates)));
}

}  // namespace nibble::ops
