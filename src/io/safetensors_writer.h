// Safetensors out, streamed: all tensors are declared first, so the header can be written; then their bytes follow in
// the declared order, in pieces of any size. Memory use does not depend on the size of the tensors.
//
// Nothing appears under its name before commit(). The order of the declarations is the order in the file; since the
// format allows no holes, an element is aligned in the file if the sizes before it allow it: declare wide types first
// where alignment matters.
#pragma once

#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/safetensors.h"

namespace nibble {

using SafetensorsMetadata = std::map<std::string, std::string>;

struct TensorDeclaration {
  std::string name;
  std::string dtype;  // as files spell it; types that nibble does not compute with pass through
  std::vector<int64_t> shape;
  uint64_t bytes = 0;

  TensorDeclaration(std::string name, DType type, const Shape& shape);
  /// The same tensor as in another file.
  explicit TensorDeclaration(const TensorInfo& info);
};

/// One file. Not thread-safe.
class SafetensorsWriter {
 public:
  /// Writes the header. Two declarations of one name are `invalid_argument`.
  static Result<SafetensorsWriter> create(const Path& file, std::vector<TensorDeclaration> tensors,
                                          const SafetensorsMetadata& metadata = {{"format", "pt"}});

  /// The next bytes of the tensor `name`, which is the declared tensor whose turn it is.
  Status append(std::string_view name, std::span<const std::byte> bytes);
  Status append(std::string_view name, const Tensor& tensor);

  /// All declared bytes are there: flushes and renames into place.
  Status commit();

 private:
  SafetensorsWriter(OutputFile file, std::vector<TensorDeclaration> tensors);
  void skip_complete();

  OutputFile file_;
  std::vector<TensorDeclaration> tensors_;
  size_t current_ = 0;    // the tensor whose turn it is
  uint64_t written_ = 0;  // of its bytes
};

/// A folder of shards with its model.safetensors.index.json; one model.safetensors when everything fits into one shard.
/// The same calls as above; a shard appears as soon as its last byte was written. Not thread-safe.
class ShardedSafetensorsWriter {
 public:
  /// What to do with shards that are in the folder already.
  enum class Existing : uint8_t {
    replace,
    keep,  // one that has the header and the size of ours is complete; others are replaced
  };

  static constexpr uint64_t kShardBytes = 5'000'000'000;  // the size that transformers uses

  /// A tensor larger than `shard_bytes` gets a shard of its own.
  static Result<ShardedSafetensorsWriter> create(const Path& folder, std::vector<TensorDeclaration> tensors,
                                                 SafetensorsMetadata metadata = {{"format", "pt"}},
                                                 uint64_t shard_bytes = kShardBytes,
                                                 Existing existing = Existing::replace);

  /// Whether the tensor is in a shard that was kept.
  bool kept(std::string_view name) const;
  /// Bytes for a shard that was kept are dropped.
  Status append(std::string_view name, std::span<const std::byte> bytes);
  Status append(std::string_view name, const Tensor& tensor);
  /// Instead of appending the whole of a tensor that was kept.
  Status skip(std::string_view name);
  /// Commits the last shard and writes the index.
  Status commit();

  uint64_t total_bytes() const { return total_bytes_; }

 private:
  ShardedSafetensorsWriter() = default;
  Status begin_shard();
  Status finish(uint64_t bytes);

  struct Shard {
    std::string file_name;
    std::vector<TensorDeclaration> tensors;
    uint64_t bytes = 0;
    bool kept = false;
  };
  struct Place {
    size_t shard = 0;
    uint64_t bytes = 0;
  };
  Path folder_;
  SafetensorsMetadata metadata_;
  std::vector<Shard> shards_;
  std::unordered_map<std::string, Place> places_;  // of the tensors
  size_t current_ = 0;
  uint64_t written_ = 0, total_bytes_ = 0;
  std::optional<SafetensorsWriter> writer_;
};

}  // namespace nibble
