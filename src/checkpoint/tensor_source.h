// TensorSource: the checked way from named tensors of a checkpoint to the slots of a model. Internal to checkpoint/.
#pragma once

#include <unordered_set>

#include "checkpoint/load.h"
#include "checkpoint/row_work.h"
#include "io/safetensors.h"

namespace nibble::checkpoint {

/// Fills the slots that visit_weights shows it. The first error sticks; later slots are then skipped.
class TensorSource : public model::WeightsVisitor {
 public:
  /// All references outlive this object. Converted memory goes to `weights`.
  TensorSource(const SafetensorsFolder& files, const Quantization& quantization, const LoadOptions& options,
               model::Weights& weights);

  void linear(const std::string& name, ops::Linear& linear, int64_t out, int64_t in) override;
  void tensor(const std::string& name, Tensor& tensor, const Shape& shape, model::TensorKind kind) override;

  /// After the visit: refuses text tensors that no slot took.
  Status finish();

 private:
  using Entry = SafetensorsFolder::Entry;

  void set_error(Status error) {
    if (status_.ok()) status_ = std::move(error);
  }
  /// The tensor of this name, or the error that explains its absence; its shape and dtype are the caller's to check.
  Result<Entry> require(const std::string& name, const Shape& shape, std::string_view dtypes);
  Status missing(const std::string& name, const Shape& shape, std::string_view dtypes) const;
  Status mismatch(const Entry& entry, const Shape& shape, std::string_view dtypes) const;

  Status load_dense(const std::string& module, ops::Linear& linear, int64_t out, int64_t in);
  Status unclaimed(const std::string& module, const Entry& found, const Shape& shape) const;

  // tensor_source_quantized.cc
  Status load_quantized(const std::string& module, const StoredFormat& format, ops::Linear& linear, int64_t out,
                        int64_t in);
  Status load_nvfp4(const std::string& module, const StoredFormat& format, ops::Linear& linear);
  Status load_fp8(const std::string& module, const StoredFormat& format, ops::Linear& linear);
  Status load_low_rank(const std::string& module, ops::Linear& linear);
  Status apply_input_factors(const std::string& module, ops::Linear& linear);
  Status load_input_scale(const std::string& module, const StoredFormat& format, ops::Linear& linear);
  Status claimed(const std::string& module, const StoredFormat& format, const Entry& found) const;
  /// The factor that a scalar stands for: itself or, in the compressed-tensors layout's global scales, its inverse.
  Result<float> load_scale(const std::string& name, bool divides);
  /// One or `out` positive numbers.
  Result<Tensor> load_factors(const std::string& name, int64_t out);
  Result<Tensor> load_factor(const std::string& name, const Shape& shape);
  void use_if_there(const std::string& name);

  /// A float matrix as it is, or as f32 when the file holds F16.
  Result<Tensor> matrix(const Entry& entry, const Shape& shape);
  Tensor copy(const Tensor& source);
  /// That no byte of a matrix is one of `bad`.
  Status check_bytes(const Entry& entry, const Tensor& matrix, bool (*bad)(uint8_t), std::string_view expected);

  const SafetensorsFolder& files_;
  const Quantization& quantization_;
  const LoadOptions& options_;
  model::Weights& weights_;
  std::unordered_set<std::string_view> used_;
  RowWork work_;
  Status status_;
};

}  // namespace nibble::checkpoint
