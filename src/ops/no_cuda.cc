// What stands in for the *_cuda files of ops/ in a build without CUDA; unreachable, see tensor/dispatch.h.
#include "ops/gated_delta/delta_mixer_backends.h"
#include "tensor/dispatch.h"

namespace nibble::ops {

void delta_mixer_cuda(Context&, const Batch&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                      const DeltaMixerWeights&, Tensor&, Tensor&, Tensor&) {
  unsupported_device("delta_mixer");
}

}  // namespace nibble::ops
