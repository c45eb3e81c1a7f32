// The weights of a plan, from the mapped source into the shards of the output.
#pragma once

#include <string>
#include <vector>

#include "quantize/quantize.h"
#include "quantize/strategy.h"
#include "quantize/tensor_records.h"

namespace nibble::quantize {

/// One output under way. Not thread-safe; works on the pool.
class TensorWriter {
 public:
  /// `records` is nullptr for an output that does not outlive the process; otherwise shards that are there are kept.
  TensorWriter(const Job& job, const QuantizeOptions& options, TensorRecords* records, ThreadPool& pool);

  /// All tensors, and the index of the shards.
  Status write(const Path& folder);
  /// In the order of the plan.
  std::vector<QuantizedTensor> take_reports() { return std::move(reports_); }

 private:
  struct Group {
    bool measured = false;
    float amax = 0;         // of its weights
    float input_scale = 0;  // 0 where inputs stay
  };
  struct Encoded;

  const Safetensors& file_of(const PlannedTensor& tensor) const;
  checkpoint::QuantizedModule module_of(const PlannedTensor& tensor) const;
  std::vector<TensorDeclaration> declare(const PlannedTensor& tensor) const;
  Result<Tensor> values_of(const PlannedTensor& tensor) const;
  Status advance(const PlannedTensor& tensor, uint64_t bytes);
  Status find_input_scales();
  Result<float> measure(const PlannedTensor& tensor);
  Result<float> group_amax(const PlannedTensor& tensor);
  bool skips(const PlannedTensor& tensor, const ShardedSafetensorsWriter& writer);
  Status write_quantized(const PlannedTensor& tensor, ShardedSafetensorsWriter& writer);
  Status append(const PlannedTensor& tensor, const SolvedLinear& solved, ShardedSafetensorsWriter& writer);
  Result<Encoded> encode_nvfp4(const PlannedTensor& tensor);
  Result<Encoded> encode_fp8(const PlannedTensor& tensor);
  Status write_copy(const PlannedTensor& tensor, ShardedSafetensorsWriter& writer);

  const Job& job_;
  const QuantizeOptions& options_;
  TensorRecords* const records_;
  const Strategy strategy_;
  Context cx_;
  std::vector<Group> groups_;
  std::vector<bool> measured_;  // by tensor of the plan: its magnitude was found, or need not be
  std::vector<QuantizedTensor> reports_;
  uint64_t done_ = 0, total_ = 0;
};

}  // namespace nibble::quantize
