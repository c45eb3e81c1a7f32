// GgufSource: the tensors of a GGUF file in the form and order of checkpoints. Internal to checkpoint/.
#pragma once

#include <functional>
#include <unordered_map>
#include <unordered_set>

#include "checkpoint/gguf_config.h"
#include "checkpoint/gguf_originals.h"
#include "checkpoint/load.h"
#include "checkpoint/row_work.h"

namespace nibble::checkpoint {

class GgufSource {
 public:
  /// References outlive this object.
  GgufSource(const Gguf& file, const GgufConfig& config, std::vector<GgufSlot> slots, Originals originals,
             const LoadOptions& options);

  std::span<const GgufSlot> slots() const { return slots_; }
  /// By the tensor's name in the checkpoint.
  const GgufSlot& slot(std::string_view hf_name) const;
  /// The slot's tensor, with its shape checked.
  Result<const GgufTensor*> require(const GgufSlot& slot);
  /// A number beside a matrix, "….scale" or "….input_scale"; absent where there is none.
  Result<std::optional<float>> factor(const GgufSlot& slot, std::string_view suffix);

  /// A matrix in f32 or bf16: a view where the file holds it as it is, else memory that `own` gives.
  Result<Tensor> matrix(const GgufSlot& slot, const std::function<Tensor(DType, const Shape&)>& own);
  /// An NVFP4 matrix: codes and block scales into memory that `own` gives.
  Status nvfp4(const GgufSlot& slot, const std::function<Tensor(DType, const Shape&)>& own, ops::Linear& linear);
  /// A vector or conv1d: the original bytes where the file keeps them, else f32 values.
  struct Vector {
    Tensor original;  // empty: there is none
    std::vector<float> values;
  };
  Result<Vector> vector(const GgufSlot& slot);

  /// Refuses tensors of the model's blocks that nothing asked for.
  Status finish() const;

 private:
  Status mismatch(const GgufTensor& tensor, std::string_view expected) const;
  /// Over the rows of the file's matrix.
  Status over_rows(const GgufTensor& tensor, const std::function<void(int64_t, int64_t)>& body) {
    return work_.over_rows(tensor.name, tensor.shape[0], tensor.bytes, body);
  }
  /// Every row of the file's matrix to where it belongs in `out`.
  Status decode(const GgufSlot& slot, const GgufTensor& tensor, const Tensor& out);
  Status reorder(const GgufSlot& slot, const GgufTensor& tensor, const Tensor& out);

  const Gguf& file_;
  const GgufConfig& config_;
  const LoadOptions& options_;
  std::vector<GgufSlot> slots_;
  Originals originals_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::unordered_set<std::string_view> used_;
  RowWork work_;
};

}  // namespace nibble::checkpoint
