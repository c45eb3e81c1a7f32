// GGUF in: metadata and named tensors of one file, as views into a read-only mapping.
//
// Layout of a file, all numbers little-endian (ggml-org/ggml, docs/gguf.md; ggml/src/gguf.cpp for what loaders demand):
//   "GGUF", u32 version 3, i64 tensors, i64 key-value pairs
//   per pair    key, u32 type, value             strings are u64 length and bytes; an array is u32 type, u64 count and
//                                                that many values, of any type but array
//   per tensor  name, u32 dims (1..4), i64 dim (innermost first), u32 ggml type, u64 offset into the data section
//   padding to general.alignment (32 where it is absent), then the data: tensor after tensor in the order of the table,
//   each padded to the alignment
// Everything is checked when the file is opened, before any tensor byte is read: counts and lengths against the bytes
// that are there, at most 65,536 pairs and 100,000 tensors, keys and names unique, names of at most 63 bytes, dims at
// least 1 and products below 2^63, rows of whole blocks, offsets where the order puts them, all data inside the file.
// What breaks these rules is `corrupt`; other versions, big-endian files, tensor types that nibble does not read, and
// parts of a split file are `unsupported`. Memory used is at most a small multiple of the header's size.
//
// After open, all methods are const and safe from any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/file.h"
#include "io/ggml_blocks.h"

namespace nibble {

inline constexpr uint64_t kGgufAlignment = 32;
inline constexpr size_t kGgufMaxNameBytes = 63;

/// What a value of the metadata is, by the numbers of the format.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufArray {
  GgufType type = GgufType::u8;
  uint64_t count = 0;
  std::span<const std::byte> bytes;       // as in the file
  std::vector<std::string_view> strings;  // of an array of strings

  /// Element i of an array of integers.
  int64_t integer(uint64_t i) const;
  bool is_integer() const;
};

/// Integers of any width, f32 and f64 as double, bool, string, array. Views live as long as the mapping.
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string_view, GgufArray>;

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::f32;
  std::vector<int64_t> shape;  // outermost first, as everywhere in nibble: the file's dims reversed
  uint64_t offset = 0;         // of the first byte in the file
  uint64_t bytes = 0;

  /// "[12288,4096] Q4_K"
  std::string text() const;
};

struct GgufHeader {
  std::vector<std::pair<std::string_view, GgufValue>> metadata;  // in the order of the file
  std::vector<GgufTensor> tensors;                               // likewise
  size_t data_begin = 0;
};

/// Parses the header of a file whose whole contents are `file`; `where` names it in messages. Total over all inputs.
Result<GgufHeader> parse_gguf_header(std::span<const std::byte> file, std::string_view where);

/// One mapped file. Movable; views stay valid while any copy of mapping() lives.
class Gguf {
 public:
  static Result<Gguf> open(const Path& file);

  Gguf(Gguf&&) = default;
  Gguf& operator=(Gguf&&) = default;

  std::span<const GgufTensor> tensors() const { return header_.tensors; }
  /// nullptr when there is none of that name. The pointer lives as long as this object.
  const GgufTensor* find(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;

  std::span<const std::pair<std::string_view, GgufValue>> metadata() const { return header_.metadata; }
  const GgufValue* value(std::string_view key) const;
  /// The value under a key: absent where there is none, `corrupt` where it has another type.
  Result<std::optional<int64_t>> integer(std::string_view key) const;
  Result<std::optional<double>> number(std::string_view key) const;
  Result<std::optional<bool>> boolean(std::string_view key) const;
  Result<std::optional<std::string_view>> string(std::string_view key) const;
  /// An array of strings, of integers of any width, or of bytes (u8); nullptr where there is none.
  Result<const GgufArray*> strings(std::string_view key) const;
  Result<const GgufArray*> integers(std::string_view key) const;
  Result<const GgufArray*> bytes(std::string_view key) const;

  /// Everything before the data section.
  std::string_view header() const;
  const MappedFile& mapping() const { return file_; }
  std::string file_name() const { return file_.path().filename().string(); }

 private:
  Gguf() = default;
  Status mistyped(std::string_view key, std::string_view expected) const;

  MappedFile file_;
  GgufHeader header_;
  std::unordered_map<std::string_view, size_t> by_name_, by_key_;
};

/// A text of a file as a message shows it: short, and on one line.
std::string gguf_shown(std::string_view text);

/// Whether the path is a file that begins like a GGUF file.
bool is_gguf(const Path& path);

}  // namespace nibble
