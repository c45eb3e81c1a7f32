// Names: which tensors a checkpoint of a given Config consists of, and what an unknown name belongs to.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "model/weights.h"

namespace nibble::model {

inline constexpr std::string_view kTextPrefix = "model.";
inline constexpr std::string_view kWrappedPrefix = "model.language_model.";

enum class Part : uint8_t {
  text,    // the language model: embedding, layers, final norm, lm_head
  mtp,     // the draft head, "mtp.*"
  visual,  // the vision tower, "model.visual.*": carried through, never computed
  other,
};

Part part_of(std::string_view tensor_name);

/// One tensor that a full-precision checkpoint has.
struct TensorSlot {
  std::string name;  // in the file
  Shape shape;       // in the file
  TensorKind kind;
  DType dtype;  // as released: bf16, but f32 for A_log and the gated norm; other float types load as well
};

/// In the order of the released tensor tables. `tied` leaves lm_head out.
std::vector<TensorSlot> text_slots(const Config& config, std::string_view prefix, bool tied);
/// The draft head: fc, three norms and `layers` full-attention blocks.
std::vector<TensorSlot> mtp_slots(const Config& config, int64_t layers = 1);

/// kTextPrefix or kWrappedPrefix, by which embedding there is; the config's form does not decide, because derived
/// checkpoints mix the two. `corrupt` when both or neither are there.
Result<std::string_view> find_prefix(const std::function<bool(std::string_view)>& has_tensor);

/// "model.layers.0.mlp.up_proj.weight" -> "model.layers.0.mlp.up_proj"; other names come back whole.
std::string_view module_name(std::string_view tensor_name);

/// The same module under the text prefix, so names from lists of either form can be compared.
std::string canonical_module(std::string_view module);

}  // namespace nibble::model
