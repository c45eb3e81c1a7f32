// GGUF out, streamed: metadata and tensors are declared first, so the header can be written; then the tensors' bytes
// follow in the declared order, in pieces of any size. The format is described in gguf.h.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "io/gguf.h"

namespace nibble {

/// Key-value pairs in the order in which they are added; each key once.
class GgufMetadata {
 public:
  void add(std::string_view key, uint32_t value);
  void add(std::string_view key, float value);
  void add(std::string_view key, bool value);
  void add(std::string_view key, std::string_view value);
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
  void add(std::string_view key, std::span<const int32_t> values);
  void add(std::string_view key, std::span<const std::string> values);
  void add(std::string_view key, std::span<const std::byte> bytes);  // an array of u8

  uint64_t count() const { return count_; }
  std::string_view bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, GgufType type);
  void begin_array(std::string_view key, GgufType type, uint64_t count);

  std::string bytes_;
  uint64_t count_ = 0;
};

struct GgufDeclaration {
  std::string name;
  GgmlType type;
  std::vector<int64_t> shape;  // outermost first; the innermost a multiple of the type's block

  uint64_t bytes() const;
};

/// One file. Nothing appears under its name before commit(). Not thread-safe.
class GgufWriter {
 public:
  /// Writes the header. Two declarations of one name, and names that no reader takes, are `invalid_argument`.
  static Result<GgufWriter> create(const Path& file, const GgufMetadata& metadata,
                                   std::vector<GgufDeclaration> tensors);

  /// The next bytes of the tensor `name`, which is the declared tensor whose turn it is.
  Status append(std::string_view name, std::span<const std::byte> bytes);

  /// All declared bytes are there: flushes and renames into place.
  Status commit();

 private:
  GgufWriter(OutputFile file, std::vector<GgufDeclaration> tensors)
      : file_(std::move(file)), tensors_(std::move(tensors)) {}
  Status pad();

  OutputFile file_;
  std::vector<GgufDeclaration> tensors_;
  size_t current_ = 0;    // the tensor whose turn it is
  uint64_t written_ = 0;  // of its bytes
};

}  // namespace nibble
