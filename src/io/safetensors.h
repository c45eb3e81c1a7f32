// Safetensors in: named tensors of a file, or of a folder of shards, as views into read-only mappings.
//
// Layout of a file: u64 little-endian n, n bytes of JSON, then the data section. The JSON maps each tensor's name to
// {"dtype", "shape", "data_offsets": [begin, end)} within the data section; "__metadata__" maps strings to strings.
// Everything is checked when the file is opened, before any tensor byte is read: the header has at most 100,000,000
// bytes, starts with '{', is UTF-8 without duplicate keys and at most 4 levels deep, names at most 100,000 tensors, and
// their ranges cover the data section exactly, without holes or overlaps, with size = shape x dtype. What breaks these
// rules is `corrupt`. (Rules: huggingface/safetensors, format description and its validation.)
//
// After open, all methods are const and safe from any thread.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace nibble {

struct TensorInfo {
  std::string name;
  std::string dtype;           // as files spell it: "BF16", "F8_E4M3", "I64", …
  std::optional<DType> type;   // its DType; absent for types that nibble carries but does not compute with
  std::vector<int64_t> shape;  // outermost first, at most 8 dimensions
  uint64_t offset = 0;         // of the first byte within the data section
  uint64_t bytes = 0;

  /// "[12288,4096] BF16"
  std::string text() const;
};

/// The spelling of a dtype in safetensors files, and back.
std::string_view safetensors_name(DType type);
std::optional<DType> dtype_from_safetensors(std::string_view spelling);

/// One mapped file. Movable; views stay valid while any copy of mapping() lives.
class Safetensors {
 public:
  static Result<Safetensors> open(const Path& file);

  Safetensors(Safetensors&&) = default;
  Safetensors& operator=(Safetensors&&) = default;

  /// In the order of the data section.
  std::span<const TensorInfo> tensors() const { return tensors_; }
  /// nullptr when there is none of that name. The pointer lives as long as this object.
  const TensorInfo* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// The JSON of the header, as it stands in the file.
  std::string_view header() const { return header_; }
  const MappedFile& mapping() const { return file_; }

  /// The raw bytes of one of this file's tensors.
  std::span<const std::byte> bytes(const TensorInfo& info) const;
  /// The same as a view. `unsupported` when info.type is absent or the rank is above Shape::kMaxRank. The address is
  /// aligned only as far as the file aligned it: callers that read elements in place look first (is_aligned).
  Result<Tensor> tensor(const TensorInfo& info) const;
  /// Tells the kernel that these bytes will not be read again.
  void drop(const TensorInfo& info) const;

 private:
  Safetensors() = default;

  MappedFile file_;
  std::string_view header_;
  size_t data_begin_ = 0;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;  // keys view into tensors_
  std::map<std::string, std::string> metadata_;
};

/// True when the tensor's address is a multiple of its element size.
bool is_aligned(const Tensor& tensor);

/// All tensors of a checkpoint folder. Which files belong to it, in this order: model.safetensors; the shards named by
/// model.safetensors.index.json, each of which must be a plain file name inside the folder; without an index a complete
/// set model-00001-of-000NN.safetensors; a single *.safetensors of another name. A shard that is missing, a tensor that
/// the index places in a shard which lacks it, and a name that occurs in two files are `corrupt`; a folder without any
/// of these is `not_found`.
class SafetensorsFolder {
 public:
  struct Entry {
    const TensorInfo* info;
    const Safetensors* file;
  };

  static Result<SafetensorsFolder> open(const Path& folder);

  SafetensorsFolder(SafetensorsFolder&&) = default;
  SafetensorsFolder& operator=(SafetensorsFolder&&) = default;

  std::span<const Safetensors> files() const { return files_; }
  /// File after file, each in its own order.
  std::span<const Entry> tensors() const { return tensors_; }
  const Entry* find(std::string_view name) const;

 private:
  SafetensorsFolder() = default;

  std::vector<Safetensors> files_;
  std::vector<Entry> tensors_;  // pointers into files_, whose elements never move
  std::unordered_map<std::string_view, size_t> by_name_;
};

}  // namespace nibble
