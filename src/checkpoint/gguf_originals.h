// The vectors of a checkpoint that GGUF's form of them does not give back, kept byte for byte. Internal to checkpoint/.
//
// 1 + w and -exp(A_log) are rounded to f32, and every vector becomes F32 whatever it was. Where the way back
// (from_gguf, then the released dtype of that tensor) does not end at the original bytes, the tensor is kept in the
// metadata, under the key "nibble.originals": an array of bytes that is a safetensors file of these tensors, by their
// names in the checkpoint. Other readers skip the key. An original counts only as long as its own way into GGUF gives
// the bits that stand in the file, so a file whose tensors were changed afterwards means what its tensors say.
#pragma once

#include <string>

#include "checkpoint/gguf_layout.h"
#include "io/gguf_writer.h"
#include "io/safetensors_header.h"

namespace nibble::checkpoint {

/// A vector or conv1d on its way into a GGUF file: F32, value heads tiled.
std::vector<float> gguf_values(const model::Config& config, const GgufSlot& slot, const Tensor& original);
/// And back: checkpoint order.
std::vector<float> checkpoint_values(const model::Config& config, const GgufSlot& slot, std::span<const float> values);
/// The bytes of values in a dtype: f32 or bf16.
std::string bytes_as(DType dtype, std::span<const float> values);

/// Collects originals for one file.
class OriginalsWriter {
 public:
  /// Keeps the tensor unless `values`, its form in GGUF, leads back to it.
  void offer(const model::Config& config, const GgufSlot& slot, const Tensor& original, std::span<const float> values);
  /// Adds the key, unless nothing was kept.
  void finish(GgufMetadata& metadata) const;

 private:
  std::vector<std::pair<std::string, std::string>> entries_;  // of the JSON: name and what stands between its braces
  std::string data_;
};

/// The originals of one file, or none. Views into its mapping.
class Originals {
 public:
  static Result<Originals> read(const Gguf& file);

  /// The original of a slot where there is one that leads to `values`; an empty tensor otherwise.
  Tensor find(const model::Config& config, const GgufSlot& slot, std::span<const float> values) const;

 private:
  std::vector<TensorInfo> tensors_;
  std::span<const std::byte> data_;
};

}  // namespace nibble::checkpoint
