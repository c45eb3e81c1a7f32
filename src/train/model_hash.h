// Which model a file belongs to, by every weight it computes with.
#pragma once

#include "base/progress.h"
#include "base/result.h"
#include "model/weights.h"
#include "tensor/context.h"

namespace nibble::train {

struct ModelHash {
  std::string all;   // SHA-256 of names, formats, shapes and values of all text tensors, and of `description`
  std::string head;  // of the head alone
};

/// `description` stands for what is not a tensor: the config. It reads all weights once, on the threads of cx, and asks
/// the system to forget the pages of mapped files again; `cancelled` when cx.cancel is set meanwhile. Progress counts
/// bytes.
Result<ModelHash> hash_model(Context& cx, model::Weights& weights, std::string_view description,
                             const Progress& progress = {});

}  // namespace nibble::train
