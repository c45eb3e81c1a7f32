// The model under training: the weights that the forward reads, the masters behind them, their gradients and moments.
//
// The forward always reads what a checkpoint would hold. Full-precision tensors are read in the type of the file: the
// BF16 half of a split master, or f32. Quantized linears are read as NVFP4, encoded from that same stored tensor by the
// quantizer's own arithmetic, once per optimizer step. So what was trained is what is written and served.
//
//   stored    what a file holds: BF16 (upper half of the master) or F32
//   adapted   stored = round(base + scale * B A), base frozen, A [r,in] and B [out,r] trained; A is kept transposed
//   quantized codes = nvfp4(stored) under the scales of the policy; a fused group shares its tensor scale
//   gradient  that of the forward, straight through every rounding
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "base/file.h"
#include "checkpoint/load.h"
#include "model/backward.h"
#include "ops/optim/adamw.h"
#include "quantize/plan.h"
#include "quantize/strategy.h"

namespace nibble::train {

/// Which tensors a run moves: all of the text model; the linears that four bits hold; these and the norms.
enum class Trainable : uint8_t { all, linears, linears_and_norms };

/// Whether a tensor is a linear of the blocks that four bits can hold: what Trainable::linears moves and adapters
/// adapt.
bool is_block_linear(std::string_view tensor_name, model::TensorKind kind);

/// dynamic: tensor and block scales follow the weights, at every step. frozen: those of the start; weights that grow
/// beyond them saturate.
enum class Scales : uint8_t { dynamic, frozen };

struct LoraOptions {
  int64_t rank = 0;  // 0: no adapter, the weights themselves are trained
  double alpha = 0;  // scale = alpha / rank; 0: alpha = 2 * rank
};

struct StudentOptions {
  bool quantize = false;  // false: SFT in the type of the file
  std::string strategy = "max";
  Scales scales = Scales::dynamic;
  bool tie_groups = true;                 // false: every linear has its own tensor scale, which no server loads
  std::vector<std::string> exclude = {};  // from quantization, as in quantize/plan.h
  std::map<std::string, float> input_amax =
      {};  // by module; not empty: inputs are rounded too, under these static scales
  Trainable trainable = Trainable::all;
  LoraOptions lora = {};
  ops::MomentFormat moments = ops::MomentFormat::f32;
  uint64_t seed = 0;  // of the adapters' first values and of stochastic rounding
};

/// A tensor that the optimizer moves. All are flat views of the student's memory.
struct TrainedTensor {
  std::string name;  // of the file's tensor; adapters: module + ".lora_A.weight", ".lora_B.weight"
  ops::AdamWParameter parameter;
  bool decay = false;  // weight decay applies: linears and adapters
};

/// 4-bit codes of all quantized linears against those of the start. -0 counts as 0.
struct Flips {
  int64_t weights = 0, flipped = 0, newly_flipped = 0;  // newly: since the last count
  int64_t blocks = 0, scales_flipped = 0, clipped = 0;  // clipped: the largest weight is above 6.5 steps of its block

  double share() const { return weights == 0 ? 0 : static_cast<double>(flipped) / static_cast<double>(weights); }
};

/// A tensor as the checkpoint that this student becomes would hold it.
struct StoredTensor {
  std::string name;
  Tensor values;  // bf16 or f32, in the shape of the file
};

/// A trained adapter, by the module it belongs to.
struct LoraPair {
  std::string module;
  Tensor a, b;  // [in,r] (PEFT's A transposed) and [out,r] f32
};

/// Scales and codes of a quantized linear, by module.
struct QuantizedLinear {
  std::string module;
  const ops::Linear* linear;
};

/// Not movable: tensors point into it. One thread at a time.
class Student {
 public:
  /// Takes the model over, a merged adapter included. `folder` is where it was loaded from: its headers say how tensors
  /// are stored. Errors:
  /// `invalid_argument` for a quantized checkpoint, an exclude that matches nothing, a calibration that lacks a module;
  /// `unsupported` for F16 tensors.
  static Result<std::unique_ptr<Student>> create(Context& cx, const Path& folder, checkpoint::LoadedModel model,
                                                 const StudentOptions& options);

  const model::Weights& weights() const { return weights_; }
  model::Gradients& gradients() { return gradients_; }
  /// Where the head's gradient is added: that of the embedding when tied. Empty when it is not trained.
  Tensor& head_gradient() { return weights_.tied ? gradients_.embed : gradients_.lm_head.weight; }

  void clear_gradients();
  /// Of everything trained together; not finite when a gradient is not. Adapters' gradients are made here, so call it
  /// once, before update.
  double gradient_norm(Context& cx);
  /// The first trained tensor whose gradient is not finite, or "".
  std::string first_not_finite(Context& cx) const;
  /// One step of the optimizer, then everything the forward reads. weight_decay of `options` applies where decay says.
  void update(Context& cx, const ops::AdamW& options);
  /// What the forward reads, from the masters: after they were changed from outside (resume).
  void refresh(Context& cx);

  Flips count_flips(Context& cx);

  std::vector<TrainedTensor>& trained() { return trained_; }
  int64_t trained_elements() const;
  /// Of the student's own memory.
  uint64_t bytes() const;
  /// Of every tensor that may differ from the source.
  std::vector<StoredTensor> stored() const;
  std::vector<QuantizedLinear> quantized() const;
  std::vector<LoraPair> adapters() const;
  const StudentOptions& options() const { return options_; }
  double lora_scale() const;

 private:
  struct Adapter {
    Tensor base;  // [out,in] f32
    Tensor a, b;  // [in,r], [out,r] f32
    Tensor a_gradient, b_gradient;
  };
  struct Slot {
    std::string name;
    model::TensorKind kind;
    Shape shape;  // in memory
    Shape file_shape;
    ops::Linear* linear = nullptr;  // one of these two, in weights_
    Tensor* tensor = nullptr;
    Tensor* gradient = nullptr;  // in gradients_
    Tensor stored;
    std::optional<Adapter> adapter;
    int64_t group = -1;  // quantized when >= 0
    Tensor first_codes, first_scales, last_codes;
  };
  struct Group {
    std::vector<size_t> members;  // of slots_
    Nvfp4TensorScale scale;
  };
  class Collector;

  explicit Student(StudentOptions options) : options_(std::move(options)) {}
  Status find_slots(const SafetensorsFolder& files, bool merged_adapter);
  Status choose_quantized(const quantize::Plan& plan);
  bool is_trained(const Slot& slot) const;
  void remember_codes(Slot& slot);
  void make_trained(Slot& slot);
  void make_adapter(Slot& slot);
  void add_trained(std::string name, const Tensor& w, const Tensor& low, const Tensor& gradient, bool decay);
  ops::Moment moment(int64_t n);
  Tensor own(DType type, const Shape& shape);
  void merge_adapter(Context& cx, const Slot& slot);
  void choose_group_scales(Context& cx, Group& group);
  void encode(Context& cx, Slot& slot);

  StudentOptions options_;
  quantize::Strategy strategy_{};
  model::Weights weights_;
  model::Gradients gradients_;
  std::vector<Buffer> buffers_;
  std::vector<Slot> slots_;
  std::vector<Group> groups_;
  std::vector<TrainedTensor> trained_;
  bool scales_chosen_ = false;
};

}  // namespace nibble::train
