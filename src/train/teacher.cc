#include "train/teacher.h"

#include "model/forward.h"

namespace nibble::train {

Result<Tensor> ResidentTeacher::hidden(Context& cx, const Batch& batch) {
  Tensor hidden = cx.arena.f32({batch.tokens(), weights_.config.hidden});
  NIBBLE_RETURN_IF_ERROR(model::forward(cx, weights_, batch.ids, sequences_.of(batch), hidden));
  return hidden;
}

}  // namespace nibble::train
