// What stands in for the *_cuda files in a build without CUDA. Nothing reaches it: no device opens in such a build.
#include "ops/attention/gated_attention_backends.h"
#include "ops/gated_delta/delta_mixer_backends.h"
#include "ops/linear/linears_backends.h"
#include "ops/sample/sample_backends.h"
#include "tensor/dispatch.h"

namespace nibble::ops {

void linears_cuda(Context&, const Tensor&, std::span<const LinearOutput>) {
  unsupported_device("linears");
}
void linear_swiglu_cuda(Context&, const Tensor&, const Linear&, const Linear&, Tensor&) {
  unsupported_device("linear_swiglu");
}
Tensor inputs_of_cuda(Context&, int64_t, std::span<const Linear* const>) {
  unsupported_device("linears");
}
size_t linears_scratch_bytes(int64_t, int64_t) {
  unsupported_device("linears");
}
Result<Linear> linear_to_device(Context&, const Linear&, std::vector<Buffer>&, Upload*) {
  unsupported_device("linears");
}
void add_rms_norm_cuda(Context&, const Tensor&, const Tensor&, float, Tensor&, Tensor&) {
  unsupported_device("add_rms_norm");
}
void embed_ids_cuda(Context&, const Tensor&, const Tensor&, Tensor&) {
  unsupported_device("embed_ids");
}
void argmax_cuda(Context&, const Tensor&, const Tensor&, Tensor&, Tensor&) {
  unsupported_device("argmax");
}
void sample_cuda(Context&, const Tensor&, const Tensor&, Tensor&, Tensor&, Tensor&, Tensor&) {
  unsupported_device("sample");
}
void sample_single_cuda(Context&, const Tensor&, const Tensor&, Tensor&, Tensor&, Tensor&, Tensor&) {
  unsupported_device("sample");
}
void gated_attention_cuda(Context&, const Batch&, const Tensor&, const Tensor&, const Tensor&,
                          const GatedAttentionWeights&, Tensor&, Tensor&, Tensor&) {
  unsupported_device("gated_attention");
}
void delta_mixer_cuda(Context&, const Batch&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                      const DeltaMixerWeights&, Tensor&, Tensor&, Tensor&) {
  unsupported_device("delta_mixer");
}
void delta_mixer_heads_cuda(Context&, const Batch&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                            const DeltaMixerWeights&, Tensor&, Tensor&, Tensor&) {
  unsupported_device("delta_mixer");
}

}  // namespace nibble::ops
