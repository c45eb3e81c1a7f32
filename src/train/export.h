// The student as a checkpoint folder: what it was loaded from, with its weights.
#pragma once

#include "base/file.h"
#include "quantize/quantize.h"
#include "train/student.h"

namespace nibble::train {

struct ExportOptions {
  Path source;           // the folder that the student was loaded from
  std::string manifest;  // contents of text::kTrainingFile: how the weights came about
};

class Exporter {
 public:
  explicit Exporter(ExportOptions options, ThreadPool& pool) : options_(std::move(options)), pool_(pool) {}

  /// Writes `output` anew, replacing what stood there: quantized students in the ModelOpt layout, with the scales and
  /// so the codes of the last forward (checked); others in full precision. The folder is complete at every moment.
  Status write(const Student& student, const Path& output) const;
  /// The adapters alone, as a PEFT folder, replacing what stood there. The student has some.
  Status write_adapter(const Student& student, const Path& output) const;

 private:
  ExportOptions options_;
  ThreadPool& pool_;
};

}  // namespace nibble::train
