// Writes a sidecar, in as many attempts as it takes.
//
//   FILE.part     the head and the rows so far, as sidecar_file.h says
//   FILE.journal  a line for every sample whose rows are there: key, first row, number of rows, and the CRC32C of the
//                 rows so far of the block under way, in hex
// A line is written behind its rows, so a process killed at any byte loses at most the sample under way. commit() adds
// the index and gives FILE.part its name: no reader ever sees less than the whole.
#pragma once

#include <vector>

#include "train/crc32c.h"
#include "train/sidecar_file.h"

namespace nibble::train {

class SidecarWriter {
 public:
  /// Begins, or goes on where an earlier attempt stopped: what its journal lists and its checks confirm stays. `plan`
  /// lists all samples; entry i begins where entry i-1 ends, and header.rows is the end of the last. `invalid_argument`
  /// when FILE.part was begun for another origin or plan, `unavailable` while another process writes it.
  static Result<SidecarWriter> open(const Path& path, const SidecarHeader& header, std::vector<SidecarEntry> plan);

  /// Samples of the plan that are written.
  size_t done() const { return done_; }
  /// The rows [count,hidden] f32 of the next sample; bf16 rounds as the head's product does.
  Status append(const Tensor& rows);
  /// After the last sample.
  Status commit();

 private:
  SidecarWriter(const Path& path, std::vector<SidecarEntry> plan, AppendFile part, AppendFile journal)
      : path_(path), plan_(std::move(plan)), part_(std::move(part)), journal_(std::move(journal)) {}

  Status begin(const SidecarHeader& header);
  Status resume(const MappedFile& part, const SidecarHeader& wanted, std::string_view journal);

  Path path_;
  std::vector<SidecarEntry> plan_;
  AppendFile part_, journal_;
  std::string head_;
  SidecarLayout layout_;
  DType dtype_ = DType::f32;
  size_t done_ = 0;
  Crc32c block_;  // the rows so far of the block under way
};

}  // namespace nibble::train
