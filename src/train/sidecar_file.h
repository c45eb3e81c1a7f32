// A sidecar: the hidden states of a teacher where a student is scored, in a file, so that the teacher reads the data
// once for all epochs and runs. Little-endian:
//
//   magic    8 bytes, NBLHID01
//   n        u64
//   header   n bytes of JSON (SidecarHeader), blanks at its end: the rows begin at a multiple of 64
//   rows     [rows,hidden] in blocks of 1024 rows, the last of the rest; behind each the CRC32C of its bytes, u32
//   index    u64 count, then for every sample, ascending by key: 64 hex digits, u64 first row, u64 number of rows
//   check    u32 CRC32C of magic, n, header and index
// The key is the SHA-256 of a sample's ids and mask (sample.h), so neither packing nor order nor epochs matter.
//
// Until it is complete it is FILE.part, without index, beside FILE.journal (sidecar_writer.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace nibble::train {

constexpr std::string_view kSidecarMagic = "NBLHID01";
constexpr int64_t kSidecarBlock = 1024;  // rows
constexpr size_t kSidecarKey = 64;       // hex digits

struct SidecarHeader {
  int64_t hidden = 0;        // width of a row
  DType dtype = DType::f32;  // f32 or bf16: what the head's product reads
  int64_t rows = 0;
  std::string teacher, head, tokenizer;  // SHA-256 of both models' parts and of tokenizer.json
  std::string prompts;                   // SHA-256 of system prompts, tools and template
  std::string loss_kinds, think_prefix;  // as the flags say them
  std::string created;                   // UTC; means nothing
};

/// Where the rows lie in the file.
struct SidecarLayout {
  uint64_t begin = 0, row_bytes = 0;
  int64_t rows = 0;

  uint64_t at(int64_t row) const {
    return begin + static_cast<uint64_t>(row) * row_bytes +
           static_cast<uint64_t>(row / kSidecarBlock) * sizeof(uint32_t);
  }
  /// Behind the first `count` rows, and the check of their block where they end one.
  uint64_t end(int64_t count) const {
    return at(count) + (count == rows && count % kSidecarBlock != 0 ? sizeof(uint32_t) : 0);
  }
};

struct SidecarEntry {
  std::string key;
  int64_t first = 0, count = 0;
};

/// Magic, n and header as they stand in the file.
std::string sidecar_head(const SidecarHeader& header);

/// The head of a file, whole or not. Total over all bytes; `where` names the file in messages.
struct ParsedSidecarHead {
  SidecarHeader header;
  SidecarLayout layout;
};
Result<ParsedSidecarHead> parse_sidecar_head(std::span<const std::byte> file, const std::string& where);

/// ok, or `invalid_argument` that names the first of head, teacher, tokenizer, width and dtype that is not as wanted.
Status same_origin(const SidecarHeader& got, const SidecarHeader& wanted, const std::string& where);

/// A complete file, mapped. Not thread-safe: it remembers which blocks it has checked.
class SidecarFile {
 public:
  /// Checks all but the rows; a block of these is checked when a row of it is first read. `corrupt` for everything that
  /// is not the format above, to the last byte.
  static Result<SidecarFile> open(const Path& path);

  const SidecarHeader& header() const { return header_; }
  const Path& path() const { return file_.path(); }
  int64_t samples() const { return samples_; }

  std::optional<SidecarEntry> find(std::string_view key) const;
  /// Row `row` of the file as f32 [hidden]; `corrupt` where its block is not what was written.
  Status read(int64_t row, float* to);

 private:
  SidecarFile() = default;
  SidecarEntry entry(int64_t i) const;
  Status check_index(uint64_t begin, const std::string& where);
  Status check_block(int64_t block) const;

  MappedFile file_;
  SidecarHeader header_;
  SidecarLayout layout_;
  std::span<const std::byte> index_;  // the entries
  int64_t samples_ = 0;
  std::vector<bool> checked_;  // blocks
};

}  // namespace nibble::train
